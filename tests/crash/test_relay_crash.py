"""Relays killed and frozen for real: nothing lost, nothing doubled, order kept."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from django.db import connection

from levada import faults
from levada.changes import CHANGES
from levada.log.embedded import EmbeddedLog
from levada.outbox.sources import open_source
from levada.relay import Relay
from tests.integration.clients import Client

pytestmark = [pytest.mark.crash, pytest.mark.django_db(transaction=True)]

POINTS = sorted(name for name in faults.POINTS if name.startswith("relay."))
KEYS = 4


class RelayProcess:
    """One relay process on the test database and `log`; killed at the end of the `with` block."""

    def __init__(self, log, *, fault="", batch_rows=10):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("LEVADA_FAULT", None)
        if fault:
            environment["LEVADA_FAULT"] = fault
        name = str(connection.settings_dict["NAME"])
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.crash.relay_process",
                name,
                str(log.path),
                str(batch_rows),
            ],
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


@pytest.fixture
def log(tmp_path):
    log = EmbeddedLog(tmp_path / "log.sqlite3", poll_s=0.005)
    yield log
    log.close()


@pytest.fixture
def counter(transactional_db):
    """A table whose rows are counted up under their locks: the count is the order of commits."""
    with Client() as client:
        client.run("CREATE TABLE crash_counter (id integer PRIMARY KEY, n integer)")
        for key in range(KEYS):
            client.run("INSERT INTO crash_counter VALUES (?, 0)", (key,))
        yield
        client.run("DROP TABLE crash_counter")


class Writer:
    """Transactions of one to three keys with one to seven rows each; one in five is rolled back."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.committed = []

    def write(self, client):
        rng, rows = self.rng, []
        client.begin(numbered=True)
        for key in sorted(rng.sample(range(KEYS), rng.randint(1, 3))):
            for _ in range(rng.randint(1, 7)):
                (n,) = client.run(
                    "UPDATE crash_counter SET n = n + 1 WHERE id = ? RETURNING n", (key,)
                ).fetchone()
                client.write(n, key=f"[{key}]")
                rows.append((f"[{key}]", n))
        if rng.random() < 0.2:
            client.rollback()
        else:
            client.commit()
            self.committed += rows


def found(log):
    position, rows = log.beginning(CHANGES), []
    while batch := log.read(position, 1000):
        rows += [(record.key, int(record.after)) for record in batch]
        position = batch.end
    return rows


def finish(log):
    """Relay the rest in this process, as the next keeper would."""
    source = open_source("default")
    relay = Relay(source, log, batch_rows=10)
    while relay.step():
        pass
    assert source.size() == 0
    source.close()


def assert_complete_and_in_order(rows, committed):
    assert sorted(rows) == sorted(committed)
    for key in range(KEYS):
        counts = [n for each, n in rows if each == f"[{key}]"]
        assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("passing", [1, 3])
@pytest.mark.parametrize("point", POINTS)
def test_a_relay_killed_at_a_named_point_loses_and_doubles_nothing(log, counter, point, passing):
    writer = Writer(f"{point} {passing}")
    with Client() as client:
        for _ in range(12):
            writer.write(client)
        with RelayProcess(log, fault=f"{point}:{passing}") as killed:
            assert killed.wait(60) == -signal.SIGKILL
        for _ in range(3):
            writer.write(client)
    finish(log)
    assert_complete_and_in_order(found(log), writer.committed)


def test_a_relay_killed_inside_a_large_transaction_leaves_no_half_of_it(log, counter):
    with Client() as client:
        client.begin()
        client.write(*range(1, 36), key="[0]")
        client.commit()
    with RelayProcess(log, fault="relay.before_append:3") as killed:
        assert killed.wait(60) == -signal.SIGKILL
    assert found(log) == []
    finish(log)
    assert_complete_and_in_order(found(log), [("[0]", n) for n in range(1, 36)])


@pytest.mark.parametrize("point", ["relay.before_append", "relay.after_append"])
def test_a_frozen_relay_that_wakes_up_writes_nothing_twice(log, counter, point):
    """It is stopped with a batch in its hands; another relay takes over; then it goes on."""
    writer = Writer(point)
    with Client() as client:
        for _ in range(12):
            writer.write(client)
        with RelayProcess(log, fault=f"{point}:2:STOP") as frozen:
            os.waitid(os.P_PID, frozen.pid, os.WSTOPPED | os.WNOWAIT)
            finish(log)
            for _ in range(3):
                writer.write(client)
            finish(log)
            frozen.send_signal(signal.SIGCONT)
            if point == "relay.after_append":
                writer.write(client)  # its append was done: it is fenced at its next one
                finish(log)
                writer.write(client)
            assert frozen.wait(60) == 3
    finish(log)
    assert_complete_and_in_order(found(log), writer.committed)


def test_relays_killed_at_random_under_load_lose_and_double_nothing(log, counter):
    """Several writers go on all the time; each relay lives for a random number of records."""
    writers, errors, stop = [Writer(seed) for seed in range(3)], [], threading.Event()

    def load(writer):
        try:
            with Client() as client:
                while not stop.is_set():
                    writer.write(client)
                    stop.wait(0.002)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=load, args=[writer]) for writer in writers]
    rng = random.Random(20261121)
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            goal = log.end(CHANGES).offset + rng.randint(1, 400)
            with RelayProcess(log, batch_rows=rng.choice([3, 50, 10_000])) as relay:
                give_up_at = time.monotonic() + 60
                while log.end(CHANGES).offset < goal and not errors:
                    assert relay.poll() is None
                    assert time.monotonic() < give_up_at
                    stop.wait(rng.random() / 200)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not errors
    finish(log)
    committed = [row for writer in writers for row in writer.committed]
    assert_complete_and_in_order(found(log), committed)
