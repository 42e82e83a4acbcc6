"""/metrics tells what the status knows, and leaves out what nobody could read."""

from datetime import UTC, datetime

import pytest

from levada.keeper.exposition import families
from levada.keeper.metrics import render
from levada.keeper.status import (
    GroupStatus,
    LogStatus,
    OutboxStatus,
    Status,
    StoreStatus,
    TopicStatus,
)
from levada.keeper.supervisor import PartStatus
from levada.keeper.verified import Verified

from .test_keeper_metrics import parse

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def status(**changes):
    whole = {
        "at": AT,
        "outbox": OutboxStatus("default", "sqlite", rows=3, oldest_s=0.25),
        "log": LogStatus(
            "/srv/log.sqlite3",
            epoch="e",
            size_bytes=4096,
            topics=(TopicStatus("changes", 40, 100),),
            groups=(GroupStatus("mail", "orders", 7, 2),),
        ),
        "stores": (
            StoreStatus(
                "analytics",
                "/srv/a.duckdb",
                position="e:changes:95",
                applied_records=95,
                lag_records=8,
                lag_s=1.5,
                tables={"shop.Order": 12},
                size_bytes=8192,
                verified=Verified(equal=True, complete=True, differences=0, at=AT),
            ),
        ),
        "dead_letters": {"analytics": 2},
        "parts": (
            PartStatus("relay", "running", 5.0, restarts=1, records=100, batches=9),
            PartStatus("apply:analytics", "waiting", 5.0, error="busy"),
        ),
    }
    return Status(**(whole | changes))


def exposed(found):
    """Return {(name, labels…): value} of what a scraper would read."""
    return {
        (name, *sorted(labels)): value
        for name, (_, _, samples) in parse(render(families(found))).items()
        for labels, value in samples.items()
    }


STORE = ("store", "analytics")


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("levada_part_up", [("part", "relay")], 1),
        ("levada_part_up", [("part", "apply:analytics")], 0),
        ("levada_part_restarts_total", [("part", "relay")], 1),
        ("levada_part_records_total", [("part", "relay")], 100),
        ("levada_part_batches_total", [("part", "relay")], 9),
        ("levada_source_up", [("source", "default")], 1),
        ("levada_outbox_rows", [("source", "default")], 3),
        ("levada_outbox_oldest_seconds", [("source", "default")], 0.25),
        ("levada_log_up", [], 1),
        ("levada_log_size_bytes", [], 4096),
        ("levada_relayed_records_total", [("topic", "changes")], 100),
        ("levada_log_records", [("topic", "changes")], 60),
        ("levada_group_lag_records", [("group", "mail"), ("topic", "orders")], 2),
        ("levada_store_up", [STORE], 1),
        ("levada_store_lag_records", [STORE], 8),
        ("levada_store_lag_seconds", [STORE], 1.5),
        ("levada_store_applied_records_total", [STORE], 95),
        ("levada_store_size_bytes", [STORE], 8192),
        ("levada_store_rows", [STORE, ("table", "shop.Order")], 12),
        ("levada_store_verified_equal", [STORE], 1),
        ("levada_store_verified_timestamp_seconds", [STORE], AT.timestamp()),
        ("levada_dead_letters", [("consumer", "analytics")], 2),
    ],
)
def test_each_figure_is_exposed(name, labels, value):
    assert exposed(status())[(name, *sorted(labels))] == value


def test_counters_end_in_total_and_gauges_do_not():
    for name, (kind, help_text, _) in parse(render(families(status()))).items():
        assert (kind == "counter") is name.endswith("_total"), name
        assert help_text.endswith(".")


def test_a_source_that_does_not_answer_is_down_and_has_no_figures():
    found = exposed(status(outbox=OutboxStatus("default", "postgresql", error="refused")))
    assert found[("levada_source_up", ("source", "default"))] == 0
    assert not [name for name, *_ in found if name.startswith("levada_outbox")]


def test_a_log_that_cannot_be_read_is_down_and_has_no_figures():
    found = exposed(status(log=LogStatus("/srv/log", error="cut short")))
    assert found[("levada_log_up",)] == 0
    assert ("levada_log_size_bytes",) not in found


def test_a_store_that_cannot_be_read_shows_no_lag_rather_than_none():
    """A lag of 0 from a store that is gone would silence every alert."""
    gone = StoreStatus("analytics", "/srv/a.duckdb", error="not a DuckDB file")
    found = exposed(status(stores=(gone,)))
    assert found[("levada_store_up", STORE)] == 0
    assert ("levada_store_lag_seconds", STORE) not in found
    assert ("levada_store_verified_equal", STORE) not in found


def test_caught_up_means_every_store_was_reached_and_lacks_nothing():
    behind = status()
    assert not behind.caught_up
    level = StoreStatus("analytics", "", position="e:changes:100")
    assert status(stores=(level,)).caught_up
    assert not status(stores=(StoreStatus("analytics", ""),)).caught_up
    assert not status(stores=(level,), log=LogStatus("/srv/log", error="cut")).caught_up
