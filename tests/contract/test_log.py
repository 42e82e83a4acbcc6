"""What every log promises, asked of each of them."""

import threading
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levada.changes import CHANGES, Position, Record
from levada.errors import ForeignPosition, LogCorrupt, LogFenced, PositionLost
from levada.log.embedded import EmbeddedLog
from levada.log.memory import MemoryLog


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "embedded"])
def log(request, tmp_path, clock):
    if request.param == "memory":
        yield MemoryLog(clock=clock)
        return
    log = EmbeddedLog(tmp_path / "log.sqlite3", poll_s=0.005, clock=clock)
    yield log
    log.close()


def row(source_id, *, topic=CHANGES, transaction=None, label="shop.Order", key=None, after="{}"):
    return (
        topic,
        label,
        "c",
        key or f"[{source_id}]",
        None,
        after,
        "fingerprint1",
        transaction,
        source_id,
        "2026-11-21T08:30:00.000000+00:00",
        '{"actor": "anna"}',
    )


def feed(log, *rows, whole=True, source="default"):
    """Append as a well-behaved relay does: from the cursor it last saw."""
    before = log.cursor(source)
    log.append(
        list(rows), source=source, expected=before, cursor=str(int(before or 0) + 1), whole=whole
    )


def start(log, topic=CHANGES):
    return log.beginning(topic)


def ids(batch):
    return [record.source_id for record in batch]


def test_a_new_log_is_empty(log):
    assert log.topics() == ()
    assert log.end(CHANGES) == log.beginning(CHANGES) == Position(log.epoch, CHANGES, 0)
    assert log.cursor("default") is None
    assert log.groups() == {}
    batch = log.read(start(log), 10)
    assert len(batch) == 0
    assert batch.end == start(log)


def test_records_come_back_as_they_went_in_with_their_offsets(log):
    feed(log, row(7, transaction=3), row(8, after=None))
    batch = log.read(start(log), 10)
    assert list(batch) == [
        Record(0, *row(7, transaction=3)),
        Record(1, *row(8, after=None)),
    ]
    assert batch.whole
    assert batch.end == log.end(CHANGES) == Position(log.epoch, CHANGES, 2)


@pytest.mark.parametrize("text", ["", "é🙂\x00\u2028", "x" * 3_000_000, '{"a": "\\ud800"}'])
def test_any_text_survives(log, text):
    feed(log, row(1, after=text, key=text or None))
    assert log.read(start(log), 1)[0].after == text


def test_each_topic_has_its_own_offsets(log):
    feed(log, row(1), row(2, topic="mails"), row(3), row(4, topic="mails"))
    feed(log, row(5, topic="mails"))
    assert ids(log.read(start(log), 10)) == [1, 3]
    assert ids(log.read(start(log, "mails"), 10)) == [2, 4, 5]
    assert log.end("mails").offset == 3
    assert log.topics() == (CHANGES, "mails")


def test_the_cursor_is_kept_for_each_source(log):
    feed(log, row(1), source="default")
    feed(log, row(2), source="other")
    feed(log, row(3), source="other")
    assert (log.cursor("default"), log.cursor("other")) == ("1", "2")


def test_an_empty_append_moves_the_cursor_alone(log):
    feed(log)
    assert log.cursor("default") == "1"
    assert log.end(CHANGES).offset == 0


def test_an_append_from_an_old_cursor_is_fenced_and_writes_nothing(log):
    feed(log, row(1))
    for stale in (None, "0"):
        with pytest.raises(LogFenced):
            log.append([row(2)], source="default", expected=stale, cursor="2")
    assert log.cursor("default") == "1"
    assert ids(log.read(start(log), 10)) == [1]


def test_a_reader_sees_nothing_of_an_append_that_failed(log):
    bad = (*row(2)[:-1], object())
    if isinstance(log, EmbeddedLog):
        with pytest.raises(Exception, match="type"):
            log.append([row(1), bad], source="default", expected=None, cursor="1")
        assert log.end(CHANGES).offset == 0
        assert log.cursor("default") is None
    feed(log, row(3))
    assert ids(log.read(start(log), 10)) == [3]


def test_reading_goes_on_where_it_stopped(log):
    for n in range(5):
        feed(log, row(2 * n), row(2 * n + 1))
    found, position = [], start(log)
    while batch := log.read(position, 3):
        assert batch.start == position
        found += ids(batch)
        position = batch.end
    assert found == list(range(10))


class TestWhole:
    """Whole transactions only."""

    def test_a_batch_ends_where_an_append_ended(self, log):
        feed(log, row(1), row(2), row(3))
        feed(log, row(4), row(5))
        assert ids(log.read(start(log), 4)) == [1, 2, 3]

    def test_a_batch_ends_between_two_transactions_of_one_append(self, log):
        feed(log, *[row(n, transaction=n // 3) for n in range(9)])
        assert ids(log.read(start(log), 4)) == [0, 1, 2]
        assert ids(log.read(start(log), 6)) == [0, 1, 2, 3, 4, 5]

    def test_a_transaction_larger_than_the_limit_comes_whole(self, log):
        feed(log, *[row(n) for n in range(5)])
        feed(log, row(5))
        batch = log.read(start(log), 2)
        assert ids(batch) == [0, 1, 2, 3, 4]
        assert batch.whole

    def test_a_large_transaction_inside_an_append_comes_alone(self, log):
        feed(log, *[row(n, transaction=7 if n < 5 else 8) for n in range(8)])
        assert ids(log.read(start(log), 2)) == [0, 1, 2, 3, 4]

    def test_split_keeps_to_the_limit_and_says_so(self, log):
        feed(log, *[row(n) for n in range(5)])
        position, found = start(log), []
        while batch := log.read(position, 2, split=True):
            found.append((ids(batch), batch.whole))
            position = batch.end
        assert found == [([0, 1], False), ([2, 3], False), ([4], True)]

    def test_an_unfinished_append_is_nobodys_business(self, log):
        feed(log, row(1))
        feed(log, row(2), whole=False)
        assert ids(log.read(start(log), 10)) == [1]
        assert log.end(CHANGES).offset == 1
        assert not log.wait(log.end(CHANGES), 0)
        feed(log, row(3), whole=False)
        feed(log, row(4))
        assert ids(log.read(log.read(start(log), 1).end, 1)) == [2, 3, 4]
        assert log.end(CHANGES).offset == 4

    def test_an_empty_append_can_complete(self, log):
        feed(log, row(1), row(2, topic="mails"), whole=False)
        assert log.topics() == ()
        feed(log)
        assert ids(log.read(start(log), 10)) == [1]
        assert ids(log.read(start(log, "mails"), 10)) == [2]

    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_any_limit_reads_everything_and_parts_no_transaction(self, data):
        log = MemoryLog()
        parts_of(log, data.draw(APPENDS), data.draw(st.integers(1, 12)))

    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_the_embedded_log_parts_no_transaction(self, data, tmp_path_factory):
        log = EmbeddedLog(tmp_path_factory.getbasetemp() / f"{uuid.uuid4().hex}.sqlite3")
        try:
            parts_of(log, data.draw(APPENDS), data.draw(st.integers(1, 12)))
        finally:
            log.close()


APPENDS = st.lists(
    st.tuples(st.lists(st.integers(1, 6), max_size=4), st.booleans(), st.booleans()), max_size=6
)
"""Appends: sizes of their transactions, whether the transactions are known, whether it is whole."""


def parts_of(log, appends, limit):
    """Feed `appends`, read with `limit` both ways, and check each batch's borders."""
    count, readable, borders, number = 0, 0, {0}, 0
    for sizes, known, whole in appends:
        rows = []
        for size in sizes:
            number += 1
            for _ in range(size):
                rows.append(row(count, transaction=number if known else None))
                count += 1
        feed(log, *rows, whole=whole)
        if whole:
            borders.add(count)
            readable = count
    for split in (False, True):
        found, position = [], log.beginning(CHANGES)
        while batch := log.read(position, limit, split=split):
            assert batch.whole or (split and len(batch) == limit)
            if batch.whole:
                assert batch.end.offset in borders or _known_border(log, batch.end)
            found += ids(batch)
            position = batch.end
        assert found == list(range(readable))


def _known_border(log, position):
    """Whether two different known transactions meet at `position`."""
    around = [
        record.transaction
        for record in log.read(log.beginning(CHANGES), 10_000)
        if record.offset in (position.offset - 1, position.offset)
    ]
    return len(around) == 2 and None not in around and around[0] != around[1]


class TestWrongPositions:
    def test_a_position_of_another_log_is_refused(self, log):
        foreign = Position("another", CHANGES, 0)
        for ask in (
            lambda: log.read(foreign, 1),
            lambda: log.wait(foreign, 0),
            lambda: log.commit("readers", foreign),
            lambda: log.age_s(foreign),
        ):
            with pytest.raises(ForeignPosition, match="rebuild"):
                ask()

    def test_a_position_beyond_the_end_means_that_records_were_lost(self, log):
        feed(log, row(1))
        with pytest.raises(LogCorrupt, match="cut short"):
            log.read(Position(log.epoch, CHANGES, 2), 10)

    def test_a_position_that_retention_has_passed_is_lost(self, log, clock):
        feed(log, row(1))
        clock.now += 100
        feed(log, row(2))
        old = Position(log.epoch, CHANGES, 0)
        assert log.prune(older_than_s=50) == 1
        with pytest.raises(PositionLost, match="rebuild"):
            log.read(old, 10)

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_one_is_refused(self, log, limit):
        feed(log, row(1))
        with pytest.raises(ValueError, match="at least 1"):
            log.read(start(log), limit)


class TestGroups:
    def test_a_group_keeps_a_position_in_each_topic(self, log):
        feed(log, row(1), row(2, topic="mails"))
        log.commit("mailer", log.end("mails"))
        log.commit("mailer", log.end(CHANGES))
        log.commit("audit", log.beginning(CHANGES))
        assert log.committed("mailer", "mails") == log.end("mails")
        assert log.committed("audit", "mails") is None
        assert log.committed("nobody", CHANGES) is None
        assert log.groups() == {
            "mailer": {"mails": log.end("mails"), CHANGES: log.end(CHANGES)},
            "audit": {CHANGES: log.beginning(CHANGES)},
        }

    def test_a_group_may_go_back(self, log):
        feed(log, row(1), row(2))
        log.commit("mailer", log.end(CHANGES))
        log.commit("mailer", log.beginning(CHANGES))
        assert log.committed("mailer", CHANGES) == log.beginning(CHANGES)

    def test_a_group_that_left_is_forgotten(self, log):
        log.commit("mailer", log.beginning(CHANGES))
        log.leave("mailer")
        log.leave("never there")
        assert log.groups() == {}


class TestRetention:
    def test_it_keeps_what_is_young(self, log, clock):
        feed(log, row(1))
        clock.now += 10
        feed(log, row(2))
        clock.now += 10
        assert log.prune(older_than_s=15) == 1
        assert ids(log.read(start(log), 10)) == [2]
        assert start(log).offset == 1
        assert log.prune(older_than_s=15) == 0

    def test_it_never_outruns_a_group(self, log, clock):
        for n in range(4):
            feed(log, row(n))
        clock.now += 1_000
        log.commit("slow", Position(log.epoch, CHANGES, 1))
        log.commit("fast", log.end(CHANGES))
        assert log.prune(older_than_s=1) == 1
        assert ids(log.read(Position(log.epoch, CHANGES, 1), 10)) == [1, 2, 3]
        log.leave("slow")
        assert log.prune(older_than_s=1) == 3
        assert start(log) == log.end(CHANGES)

    def test_a_group_of_another_topic_holds_nothing_back(self, log, clock):
        feed(log, row(1), row(2, topic="mails"))
        log.commit("mailer", log.beginning("mails"))
        clock.now += 10
        assert log.prune(older_than_s=1) == 1
        assert ids(log.read(start(log, "mails"), 10)) == [2]

    def test_offsets_and_reading_go_on_after_everything_was_pruned(self, log, clock):
        feed(log, row(1), row(2))
        clock.now += 10
        log.prune(older_than_s=1)
        end = log.end(CHANGES)
        assert end.offset == 2
        feed(log, row(3))
        assert [record.offset for record in log.read(end, 10)] == [2]
        assert log.topics() == (CHANGES,)

    def test_an_unfinished_append_is_never_pruned(self, log, clock):
        feed(log, row(1))
        feed(log, row(2), whole=False)
        clock.now += 10
        assert log.prune(older_than_s=1) == 1
        feed(log, row(3))
        assert ids(log.read(start(log), 10)) == [2, 3]


def test_age_is_that_of_the_record_at_the_position(log, clock):
    feed(log, row(1))
    clock.now += 5
    feed(log, row(2))
    clock.now += 2
    assert log.age_s(start(log)) == 7
    assert log.age_s(Position(log.epoch, CHANGES, 1)) == 2
    assert log.age_s(log.end(CHANGES)) == 0


def test_forget_blanks_every_record_of_one_row(log):
    feed(log, row(1, key="[7]", after='{"name": "Ana"}'), row(2, key="[8]"))
    feed(log, row(3, key="[7]"), row(4, key="[7]", label="shop.Customer"))
    assert log.forget("shop.Order", "[7]") == 2
    records = list(log.read(start(log), 10))
    assert [(r.before, r.after, r.context) for r in records if r.source_id in (1, 3)] == [
        (None, None, None)
    ] * 2
    assert [r.after for r in records if r.source_id in (2, 4)] == ["{}", "{}"]
    assert [r.key for r in records] == ["[7]", "[8]", "[7]", "[7]"]
    assert log.forget("shop.Order", "[7000]") == 0


def test_the_log_takes_room(log):
    feed(log, row(1, after="x" * 1000))
    assert log.size_bytes() >= 1000


class TestWaiting:
    def test_it_returns_at_once_when_there_is_a_record(self, log):
        feed(log, row(1))
        assert log.wait(start(log), 60)

    def test_it_gives_up(self, log):
        assert not log.wait(start(log), 0.01)

    def test_an_append_wakes_every_waiting_thread(self, log):
        woken = []
        threads = [
            threading.Thread(target=lambda: woken.append(log.wait(start(log), 60)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        feed(log, row(1))
        for thread in threads:
            thread.join(60)
        assert woken == [True] * 4

    def test_another_topic_does_not_count(self, log):
        feed(log, row(1, topic="mails"))
        assert not log.wait(start(log), 0.01)


def test_readers_see_whole_appends_while_a_producer_writes(log):
    """Four threads read while one appends; each sees every record once, in order."""
    total, seen, errors = 200, {}, []

    def read(name):
        position, found = start(log), []
        try:
            while len(found) < 3 * total:
                if log.wait(position, 60):
                    batch = log.read(position, 50)
                    assert len(batch) % 3 == 0
                    found += ids(batch)
                    position = batch.end
                    log.commit(name, position)
        except BaseException as error:
            errors.append(error)
        seen[name] = found

    threads = [threading.Thread(target=read, args=(f"reader {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for n in range(total):
        feed(log, row(3 * n), row(3 * n + 1), row(3 * n + 2))
    for thread in threads:
        thread.join(120)
    assert not errors
    assert all(found == list(range(3 * total)) for found in seen.values())
    assert len(seen) == 4
