"""
Kill the keeper at every named point and at random moments; afterwards nothing is lost or doubled.

Each test ends with `levada verify`, which compares every row of source and
replica, names those that differ, and exits 1 if there are any.
"""

from __future__ import annotations

import json
import random
import signal
import time

import pytest

from levada.faults import POINTS
from tests.conftest import VENDOR
from tests.integration.projects import MANAGE, Project

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

DEADLINE_S = 120
POISON_POINTS = ["apply.before_letter", "apply.after_letter"]
BETWEEN_PARTS = "apply.between_parts"
KEEPER_POINTS = sorted(
    {name for name in POINTS if name.startswith(("relay.", "apply."))}
    - {*POISON_POINTS, BETWEEN_PARTS}
)
LARGE_POINTS = [
    "relay.before_append:6",
    "relay.in_append:6",
    "relay.after_append:6",
    # On SQLite a batch that has nothing to prune comes by here, too.
    "relay.in_prune:1" if VENDOR == "postgresql" else "relay.in_prune:3",
    f"{BETWEEN_PARTS}:1",
    f"{BETWEEN_PARTS}:12",
    "apply.before_commit:1",
]
LARGE_TRANSACTION = """
from django.db import transaction
from tests.shop.models import Customer
with transaction.atomic():
    Customer.objects.bulk_create(Customer(name=f"Ana {n}") for n in range(500))
    Customer.objects.update(country="XX")
"""
REBUILD_POINTS = sorted(name for name in POINTS if name.startswith("rebuild."))
POISON = """
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute(
        "INSERT INTO shop_orderline (order_id, sku, quantity, price) "
        "SELECT min(id), 'sku-poison', 'a dozen', 1 FROM shop_order"
    )
"""
UNPOISON = """
from tests.shop.models import OrderLine
OrderLine.objects.filter(sku="sku-poison").update(quantity=12)
"""


@pytest.fixture
def project(tmp_path):
    """A migrated project with a few hundred rows, its replica filled and its keeper stopped."""
    made = Project(tmp_path)
    try:
        made.manage("migrate", "--verbosity", "0")
        load = write(made, seed=3, operations=40)
        assert load.wait(DEADLINE_S) == 0
        settle_and_verify(made)
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("point", KEEPER_POINTS)
def test_a_keeper_killed_at_a_named_point_loses_and_doubles_nothing(project, point):
    """At the second passing, so that there is ordinary work before the kill and after it."""
    keeper = project.keep(fault=f"{point}:2")
    load = write(project, seed=7, operations=250)
    assert killed_itself(keeper.process), f"{point} was not reached:\n{keeper.said()}"
    assert load.wait(DEADLINE_S) == 0
    settle_and_verify(project)


@pytest.mark.parametrize("point", LARGE_POINTS)
def test_a_keeper_killed_inside_a_large_transaction_loses_and_doubles_nothing(
    project, monkeypatch, point
):
    """More than a thousand records in batches of fifty."""
    monkeypatch.setenv("LEVADA_TEST_BATCH_ROWS", "50")
    keeper = project.keep(fault=point)
    project.python(LARGE_TRANSACTION)
    assert killed_itself(keeper.process), f"{point} was not reached:\n{keeper.said()}"
    settle_and_verify(project)


@pytest.mark.sqlite
@pytest.mark.parametrize("point", POISON_POINTS)
def test_a_keeper_killed_around_a_dead_letter_writes_it_once(project, point):
    """SQLite takes a text for a number; DuckDB does not."""
    keeper = project.keep(fault=point)
    project.python(POISON)
    assert killed_itself(keeper.process), f"{point} was not reached:\n{keeper.said()}"
    keeper = project.keep()
    keeper.wait_until_applied()
    assert keeper.stop() == 0
    letters = project.levada("dead-letters", "list")
    assert letters.count("shop.OrderLine") == 1, letters
    report = json.loads(project.levada("verify", "analytics", "--json", exit_status=1))
    assert [each["label"] for each in report["tables"] if each["differences"]] == ["shop.OrderLine"]
    project.python(UNPOISON)
    settle_and_verify(project)


@pytest.mark.parametrize("point", REBUILD_POINTS)
def test_a_rebuild_killed_at_a_named_point_leaves_the_replica_whole(project, point):
    load = write(project, seed=11, operations=600)
    rebuild = project.start("-c", MANAGE, "levada", "rebuild", "analytics", fault=point)
    assert killed_itself(rebuild), f"{point} was not reached"
    assert load.wait(DEADLINE_S) == 0
    settle_and_verify(project)
    project.levada("rebuild", "analytics")
    settle_and_verify(project)


def test_a_keeper_killed_at_random_moments_of_a_mixed_load_ends_with_an_equal_replica(project):
    choose = random.Random(20261121)
    loads = [write(project, seed=seed, operations=250) for seed in (1, 2)]
    for _ in range(6):
        keeper = project.keep()
        # Not a wait for a condition: the moment itself is what the test draws.
        time.sleep(choose.uniform(0, 2))
        keeper.process.send_signal(signal.SIGKILL)
        assert keeper.process.wait() == -signal.SIGKILL, keeper.said()
    assert [load.wait(DEADLINE_S) for load in loads] == [0, 0]
    settle_and_verify(project)


def write(project, *, seed, operations):
    """Start a process that runs `operations` random transactions."""
    return project.start("-m", "tests.crash.load", str(seed), str(operations))


def killed_itself(process):
    """Wait for `process` and say whether SIGKILL ended it, as an armed fault point does."""
    return process.wait(timeout=DEADLINE_S) == -signal.SIGKILL


def settle_and_verify(project):
    keeper = project.keep()
    keeper.wait_until_applied()
    assert keeper.stop() == 0, keeper.said()
    report = json.loads(project.levada("verify", "analytics", "--json"))
    assert report["equal"] is True
    assert sum(table["source_rows"] for table in report["tables"]) > 100
