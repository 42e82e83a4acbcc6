"""
An applier that the system froze, and that goes on after another has taken its place.

Three real processes: one owns the store's file and relays, two apply as its
clients. Without compare-and-set on the position the frozen one would write its
batch a second time, over newer rows.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conditions import wait_until
from tests.integration.projects import SETUP, Project

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

OWNER = """
import sys, threading
from levada.log import open_log
from levada.outbox.sources import open_source
from levada.relay import Relay
from levada.stores import open_store
open_store("analytics").position()
stop = threading.Event()
relay = threading.Thread(target=Relay(open_source(), open_log()).run, args=(stop,))
relay.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
relay.join()
"""
APPLIER = """
import signal, threading
from levada.apply import Applier
from levada.errors import PositionMoved
from levada.log import open_log
from levada.outbox.sources import open_source
from levada.stores import open_store
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *args: stop.set())
try:
    Applier(open_store("analytics"), open_log(), open_source()).run(stop)
except PositionMoved as error:
    print("stopped:", error, flush=True)
"""
WRITE = """
from tests.shop.models import Seat
for number in range({}, {}):
    Seat.objects.update_or_create(row="A", number=number % 5, defaults={{"taken": number % 2}})
"""
WRITE_MANY = """
from tests.shop.models import Seat
Seat.objects.bulk_create(Seat(row="B", number=number) for number in range(500))
"""
SEATS_HELD = """
from tests.shop.models import Seat
print(Seat.objects.using("analytics").count())
"""
VERIFY = """
from levada.apply import verify
found = verify("analytics")
assert found.equal, found.to_json()
(table,) = (table for table in found.tables if table.label == "shop.Seat")
print("equal", table.store_rows)
"""


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    try:
        made.manage("migrate", "--verbosity", "0")
        yield made
    finally:
        made.close()


@pytest.fixture
def start(project):
    """Start processes of the project; whatever state they are in, they end with the test."""
    started = []

    def start(code, fault=""):
        process = subprocess.Popen(
            [sys.executable, "-c", SETUP + code],
            env=project.environment | {"LEVADA_FAULT": fault},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def frozen(process):
    """Say whether the process is stopped by a signal: `T` after its name in /proc."""
    assert process.poll() is None, process.stdout.read()
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads the process's state from /proc")
def test_a_frozen_applier_writes_nothing_after_another_took_over(project, start):
    owner = start(OWNER)
    assert owner.stdout.readline() == "ready\n"
    first = start(APPLIER, fault="apply.before_transaction:1:STOP")
    assert project.python(VERIFY) == "equal 0\n"  # it has filled the store
    project.python(WRITE.format(0, 5))
    wait_until(lambda: frozen(first), message="the first applier never came to its transaction")

    second = start(APPLIER)
    project.python(WRITE.format(5, 40))
    assert project.python(VERIFY) == "equal 5\n"

    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 0
    assert "another applier wrote to it" in first.stdout.read()
    project.python(WRITE.format(40, 43))
    assert project.python(VERIFY) == "equal 5\n"
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0
    assert second.stdout.read() == ""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads the process's state from /proc")
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "continued"])
def test_an_applier_frozen_inside_a_large_transaction_writes_all_of_it_or_nothing(
    project, start, monkeypatch, killed
):
    """Until it goes on or is killed, the other one can only wait."""
    monkeypatch.setenv("LEVADA_TEST_BATCH_ROWS", "20")
    owner = start(OWNER)
    assert owner.stdout.readline() == "ready\n"
    first = start(APPLIER, fault="apply.between_parts:7:STOP")
    assert project.python(VERIFY) == "equal 0\n"
    project.python(WRITE_MANY)
    wait_until(lambda: frozen(first), message="the first applier never came to the seventh part")

    second = start(APPLIER)
    assert project.python(SEATS_HELD) == "0\n"
    first.send_signal(signal.SIGKILL if killed else signal.SIGCONT)
    assert project.python(VERIFY) == "equal 500\n"
    if killed:
        assert first.wait(60) == -signal.SIGKILL
    else:
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
    project.python(WRITE.format(0, 5))
    if second.poll() is None:
        assert project.python(VERIFY) == "equal 505\n"
        second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads the process's state from /proc")
def test_an_applier_told_to_stop_inside_a_large_transaction_leaves_nothing_of_it(
    project, start, monkeypatch
):
    monkeypatch.setenv("LEVADA_TEST_BATCH_ROWS", "20")
    owner = start(OWNER)
    assert owner.stdout.readline() == "ready\n"
    first = start(APPLIER, fault="apply.between_parts:7:STOP")
    assert project.python(VERIFY) == "equal 0\n"
    project.python(WRITE_MANY)
    wait_until(lambda: frozen(first), message="the first applier never came to the seventh part")
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 0
    assert project.python(SEATS_HELD) == "0\n"

    second = start(APPLIER)
    assert project.python(VERIFY) == "equal 500\n"
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0
