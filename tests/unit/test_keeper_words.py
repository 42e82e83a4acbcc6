"""A person reads the status at a glance."""

from datetime import timedelta

import pytest

from levada.keeper import words
from levada.keeper.progress import ProgressBar, bar
from levada.keeper.status import GroupStatus, LogStatus, OutboxStatus, StoreStatus
from levada.keeper.verified import Verified

from .test_keeper_exposition import AT, status
from .test_keeper_logs import Terminal


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0 s"), (99.94, "99.9 s"), (180, "3 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_durations_take_the_unit_that_suits_them(value, text):
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (12_345_678, "12.3 MB"), (5e15, "5000.0 TB")],
)
def test_sizes_take_the_unit_that_suits_them(value, text):
    assert words.size(value) == text


def test_one_record_is_singular():
    assert words.count(1, "record") == "1 record"
    assert words.count(1234, "record") == "1,234 records"


def test_columns_line_up():
    lines = list(words.table(["Store", "Rows"], [["analytics", "1"], ["b", "22"]]))
    assert lines == ["Store      Rows", "analytics  1", "b          22"]


def lines(**changes):
    return "\n".join(words.status(status(**changes)))


def test_the_status_names_rows_lag_dead_letters_and_verification():
    text = lines(at=AT + timedelta(minutes=3))
    assert "8 records, 1.5 s" in text
    assert "verified ✓ 3 min ago" in text
    assert "shop.Order" in text
    assert "changes: 40 to 100, 60 records" in text
    assert "relay: nobody" in text


def test_a_group_whose_record_fails_says_how():
    failing = GroupStatus("mail", "orders", 7, 2, tries=3, reason="SMTPError: refused")
    text = lines(log=LogStatus("log", epoch="e", groups=(failing,)))
    assert "mail failed 3 times at orders:7\n    SMTPError: refused" in text
    assert "failed" not in lines()


def test_a_difference_is_not_ticked():
    differs = Verified(equal=False, complete=True, differences=2, at=AT)
    text = lines(stores=(StoreStatus("analytics", "", position="e:changes:1", verified=differs),))
    assert "2 differ" in text
    assert "✓" not in text


def test_a_table_that_was_never_compared_is_not_ticked():
    partly = Verified(equal=True, complete=False, differences=0, at=AT)
    assert partly.words == "partly verified"
    assert Verified(equal=True, complete=False, differences=0, at=None).words == "not verified"


def test_what_does_not_answer_says_why():
    text = lines(
        outbox=OutboxStatus("default", "sqlite", error="no such table"),
        stores=(StoreStatus("analytics", "", error="not a DuckDB file. Run: …"),),
    )
    assert "no such table" in text
    assert "not a DuckDB file. Run: …" in text


def test_the_bar_fills_and_counts():
    assert bar(0, 10).startswith("░")
    assert bar(5, 10).endswith(" 50% 5 of 10")
    assert "░" not in bar(10, 10)
    assert bar(1234, None) == "1,234 rows"


def test_progress_is_drawn_on_a_terminal_and_wiped_at_the_end():
    out = Terminal()
    progress = ProgressBar(out, word="Verifying")
    progress("shop.Order", 10, 10)
    assert out.getvalue().startswith("\rVerifying shop.Order ██")
    progress.close()
    assert out.getvalue().endswith("\r")


def test_progress_is_silent_where_nobody_looks():
    import io

    out = io.StringIO()
    progress = ProgressBar(out, word="Verifying")
    progress("shop.Order", 10, 10)
    progress.close()
    assert out.getvalue() == ""
