"""The keeper as its users meet it: a process that is started, watched, stopped and killed."""

import json
import signal

import pytest

from .projects import Project

WRITE = """
from tests.shop.models import Customer, Order
customer = Customer.objects.create(name="Ana", country="PT")
Order.objects.bulk_create([Order(customer=customer, total=n) for n in range({rows})])
Order.objects.filter(total__lt=10).update(country="ES")
Order.objects.filter(total__gte={rows} - 5).delete()
"""
ORDERS = 'levada_store_rows{store="analytics",table="shop.Order"}'
LAG = 'levada_store_lag_records{store="analytics"}'


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    try:
        made.manage("migrate", "--verbosity", "0")
        yield made
    finally:
        made.close()


def test_rows_travel_into_the_replica_and_sigterm_ends_it_cleanly(project):
    keeper = project.keep()
    project.python(WRITE.format(rows=500))
    keeper.wait_for_metric(ORDERS, 495)
    keeper.wait_for_metric(LAG, 0)
    health = json.loads(keeper.get("/healthz"))
    assert health["status"] == "ok"
    assert set(health["parts"]) == {"relay", "apply:analytics", "retention"}
    assert keeper.stop() == 0
    assert [line["message"] for line in keeper.lines()].count("stopped") == 3
    assert "equal ✓" in project.levada("verify", "analytics")


def test_ctrl_c_ends_it_cleanly_too(project):
    keeper = project.keep("--only", "relay")
    assert keeper.stop(signal.SIGINT) == 0


def test_a_second_keeper_is_refused_with_the_pid_of_the_first(project):
    first = project.keep()
    said = project.levada("run", exit_status=1)
    assert f"already kept by process {first.process.pid}" in said
    said = project.levada("run", "--only", "apply:analytics", exit_status=1)
    assert f"apply:analytics is already kept by process {first.process.pid}" in said
    assert first.process.poll() is None


def test_a_killed_keeper_leaves_no_lock_and_the_next_one_continues(project):
    first = project.keep()
    project.python(WRITE.format(rows=100))
    first.wait_for_metric(ORDERS, 95)
    first.kill()
    project.python(WRITE.format(rows=100))
    second = project.keep()
    second.wait_for_metric(ORDERS, 190)
    second.wait_for_metric(LAG, 0)
    assert second.stop() == 0
    project.levada("verify", "analytics")


def test_an_operator_may_ask_anything_while_the_keeper_works(project):
    """DuckDB lets one process open a file; every word must work beside the one that has it."""
    keeper = project.keep()
    project.python(WRITE.format(rows=200))
    keeper.wait_for_metric(ORDERS, 195)
    found = json.loads(project.levada("status", "--json"))
    assert found["caught_up"] is True
    (store,) = found["stores"]
    assert store["tables"]["shop.Order"] == 195
    assert store["keeper_pid"] == keeper.process.pid
    assert "equal ✓" in project.levada("verify", "analytics")
    project.levada("rebuild", "analytics", "--table", "shop.Order")
    assert "195 rows  equal ✓" in project.levada("verify", "analytics", "--table", "shop.Order")
    assert "applied" in project.levada("replay", "analytics")
    project.python("from tests.shop.models import Customer; Customer.objects.create(id=99)")
    project.python("from tests.shop.models import Customer; Customer.objects.get(id=99).delete()")
    assert "blanked 2 records" in project.levada("forget", "shop.Customer", "99")
    said = project.levada("doctor")
    assert f"Process {keeper.process.pid} keeps apply:analytics" in said
    assert "analytics was equal to its source" in said
    assert keeper.metric('levada_store_verified_equal{store="analytics"}') == 1
    assert json.loads(keeper.get("/healthz"))["status"] == "ok"
    assert keeper.stop() == 0
    project.levada("verify", "analytics")


READER = """
import sys
from django.db import connections
from tests.shop.models import Order
with connections["analytics"].cursor() as cursor:
    cursor.execute("SELECT 42")
    cursor.fetchall()
print("open", flush=True)
for line in sys.stdin:
    print(Order.objects.using("analytics").count(), flush=True)
"""


def test_the_keeper_takes_the_file_over_from_a_web_worker_that_was_first(project):
    project.levada("verify", "analytics")
    with project.open_python(READER) as worker:
        assert worker.stdout.readline() == "open\n"
        owner = project.path / "analytics.duckdb.lock"
        assert int(owner.read_text()) == worker.pid
        keeper = project.keep()
        project.python(WRITE.format(rows=100))
        keeper.wait_for_metric(ORDERS, 95)
        assert int(owner.read_text()) == keeper.process.pid
        worker.stdin.write("count\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "95\n"
        assert keeper.stop() == 0
        worker.stdin.write("count\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "95\n"
        worker.stdin.close()
        assert worker.wait(60) == 0


def test_relay_and_applier_may_run_in_processes_of_their_own(project):
    relay = project.keep("--only", "relay")
    applier = project.keep("--only", "apply:analytics,retention")
    project.python(WRITE.format(rows=50))
    applier.wait_for_metric(ORDERS, 45)
    assert relay.metric(ORDERS) is None, "each keeper tells of the stores it keeps"
    assert relay.stop() == 0
    assert applier.stop() == 0


def test_a_part_that_does_not_exist_is_refused(project):
    said = project.levada("run", "--only", "aply:analytics", exit_status=1)
    assert "There is no part 'aply:analytics'" in said
    assert "relay, apply:analytics" in said
