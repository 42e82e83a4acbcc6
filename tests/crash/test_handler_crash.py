"""Handlers killed and frozen for real: in the database once, elsewhere at least once, in order."""

import os
import signal
import subprocess
import sys

import pytest
from django.db import connection

from levada import faults
from levada.changes import OutboxRow
from levada.log.embedded import EmbeddedLog
from levada.models import GroupPosition
from tests.conditions import wait_until
from tests.shop.models import Product

pytestmark = [pytest.mark.crash, pytest.mark.django_db(transaction=True)]

POINTS = sorted(name for name in faults.POINTS if name.startswith("handlers."))
COUNT = 8


class HandlerProcess:
    """A runner on the test database and `log`; killed at the end of the `with` block."""

    def __init__(self, log, *, fault=""):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("LEVADA_FAULT", None)
        if fault:
            environment["LEVADA_FAULT"] = fault
        arguments = [str(connection.settings_dict["NAME"]), str(log.path), str(sent_path(log))]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.handler_process", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        assert self.process.stdout.readline() == "started\n"
        return self.process

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait(60)
        self.process.stdout.close()


def sent_path(log):
    return log.path.with_name("sent")


@pytest.fixture
def log(tmp_path):
    """A log that holds COUNT messages."""
    log = EmbeddedLog(tmp_path / "log.sqlite3", poll_s=0.005)
    rows = [
        OutboxRow("paid", "", "m", None, None, str(n), "", n, n, "2026-11-21T08:30:00+00:00", None)
        for n in range(COUNT)
    ]
    log.append(rows, source="default", expected=None, cursor=str(COUNT))
    yield log
    log.close()


def handled():
    return [int(name) for name in Product.objects.order_by("id").values_list("name", flat=True)]


def finish(log):
    """Let a new process handle what is left."""
    with HandlerProcess(log):
        wait_until(lambda: GroupPosition.objects.filter(group="receipts", offset=COUNT).exists())


@pytest.mark.parametrize("passing", [1, 4])
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_handler_has_written_each_record_once(log, point, passing):
    with HandlerProcess(log, fault=f"{point}:{passing}") as killed:
        assert killed.wait(60) == -signal.SIGKILL
    finish(log)
    assert handled() == list(range(COUNT))

    sent = [int(line) for line in sent_path(log).read_text().split()]
    again = point == "handlers.before_commit"
    assert len(sent) == COUNT + again
    assert sorted(set(sent)) == list(range(COUNT))


def test_a_handler_that_was_frozen_while_another_worked_writes_nothing(log):
    with HandlerProcess(log, fault="handlers.before_move:3:STOP") as frozen:
        wait_until(lambda: GroupPosition.objects.filter(group="receipts", offset=2).exists())
        finish(log)
        frozen.send_signal(signal.SIGCONT)
        assert frozen.wait(60) == 3
    assert handled() == list(range(COUNT))
