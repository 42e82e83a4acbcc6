"""A part is kept once, by whoever lives; a dead process leaves no lock behind."""

import os
import signal
import subprocess
import sys

import pytest

from levada.errors import AlreadyRunning
from levada.keeper.locks import PartLock, held, holder
from tests.conditions import wait_until

HOLD = """
import sys, time
from pathlib import Path
from levada.keeper.locks import PartLock
lock = PartLock(Path(sys.argv[1]), "relay")
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.sqlite3.relay.lock"


@pytest.fixture
def other_process(path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


def test_a_second_holder_is_refused_and_told_the_first_ones_pid(path, other_process):
    with pytest.raises(
        AlreadyRunning, match=f"relay is already kept by process {other_process.pid}"
    ):
        PartLock(path, "relay").acquire()
    assert holder(path).pid == other_process.pid


def test_a_killed_holder_leaves_no_lock(path, other_process):
    other_process.send_signal(signal.SIGKILL)
    other_process.wait(10)
    assert holder(path) is None
    with held(PartLock(path, "relay")):
        assert holder(path).pid == os.getpid()


def test_one_process_cannot_hold_it_twice_either(path):
    with held(PartLock(path, "relay")), pytest.raises(AlreadyRunning):
        PartLock(path, "relay").acquire()


def test_a_released_lock_can_be_taken_again_and_names_nobody(path):
    with held(PartLock(path, "relay")):
        pass
    assert holder(path) is None
    assert path.read_text() == ""
    with held(PartLock(path, "relay")):
        pass


def test_nobody_holds_a_lock_that_never_was(path):
    assert holder(path) is None
    assert not path.exists()


def test_releasing_twice_is_harmless(path):
    lock = PartLock(path, "relay")
    lock.acquire()
    lock.release()
    lock.release()
    assert holder(path) is None


def test_a_glance_at_the_lock_does_not_refuse_a_starting_keeper(path):
    """`levada status` looks by a shared lock; a keeper that starts in that moment waits for it."""
    import fcntl
    import threading

    path.touch()
    lock = PartLock(path, "relay")
    with path.open() as glance:
        fcntl.flock(glance, fcntl.LOCK_SH)
        starting = threading.Thread(target=lock.acquire)
        starting.start()
        wait_until(starting.is_alive)
        fcntl.flock(glance, fcntl.LOCK_UN)
    starting.join(10)
    assert holder(path).pid == os.getpid()
    lock.release()


def test_a_forked_child_that_lets_go_leaves_the_lock_to_its_parent(path):
    lock = PartLock(path, "relay")
    lock.acquire()
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert holder(path).pid == os.getpid()
    lock.release()
