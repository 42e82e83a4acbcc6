"""The keeper runs its parts in threads, once per store, and stops them all."""

import os
import signal
import threading

import pytest

from levada.errors import AlreadyRunning, ConfigurationError
from levada.keeper import Keeper
from levada.keeper.locks import PartLock, holder
from levada.keeper.parts import choose
from levada.keeper.supervisor import PartSpec
from tests.conditions import wait_until


class Works:
    """A runner that works until it is told to stop, and `late_s` longer."""

    def __init__(self, release=None):
        self.release = release
        self.working = threading.Event()
        self.ended = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def run(self, stop):
        self.working.set()
        stop.wait()
        if self.release:
            self.release.wait()
        self.ended.set()


@pytest.fixture
def locks(tmp_path):
    return lambda name: PartLock(tmp_path / f"{name.replace(':', '-')}.lock", name)


def keeper_of(locks, **runners):
    specs = [
        PartSpec(name.replace("_", ":"), lambda r=runner: r) for name, runner in runners.items()
    ]
    return Keeper(parts=specs, locks=locks)


def test_every_part_runs_in_a_thread_and_stops(locks):
    relay, apply = Works(), Works()
    keeper = keeper_of(locks, relay=relay, apply_analytics=apply)
    keeper.start()
    assert relay.working.wait(10)
    assert apply.working.wait(10)
    assert keeper.stop() is True
    assert [part.state for part in keeper.parts()] == ["stopped", "stopped"]
    assert relay.ended.is_set()


def test_a_second_keeper_is_refused_and_starts_nothing(locks, tmp_path):
    first = keeper_of(locks, apply_analytics=Works())
    relay = Works()
    second = keeper_of(locks, relay=relay, apply_analytics=Works())
    first.start()
    with pytest.raises(
        AlreadyRunning, match=f"apply:analytics is already kept by process {os.getpid()}"
    ):
        second.start()
    assert not relay.working.is_set()
    assert holder(tmp_path / "relay.lock") is None
    first.stop()
    second.start()
    assert relay.working.wait(10)
    second.stop()


def test_parts_of_one_project_may_run_in_different_processes(locks):
    one = keeper_of(locks, relay=Works())
    other = keeper_of(locks, apply_analytics=Works())
    one.start()
    other.start()
    assert one.stop()
    assert other.stop()


def test_stop_waits_for_the_running_batch(locks):
    release = threading.Event()
    relay = Works(release)
    keeper = keeper_of(locks, relay=relay)
    keeper.start()
    assert relay.working.wait(10)
    threading.Timer(0.05, release.set).start()
    assert keeper.stop(timeout_s=30) is True
    assert relay.ended.is_set()


def test_a_part_that_does_not_end_is_reported_and_keeps_its_lock(locks, tmp_path):
    release = threading.Event()
    stuck = Works(release)
    keeper = keeper_of(locks, relay=stuck, apply_analytics=Works())
    keeper.start()
    assert stuck.working.wait(10)
    assert keeper.stop(timeout_s=0.1) is False
    assert holder(tmp_path / "relay.lock").pid == os.getpid()
    assert holder(tmp_path / "apply-analytics.lock") is None
    release.set()
    assert keeper.stop(timeout_s=30) is True
    assert holder(tmp_path / "relay.lock") is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ends_cleanly_on_a_signal_and_gives_the_handlers_back(locks, number):
    relay = Works()
    keeper = keeper_of(locks, relay=relay)
    before = signal.getsignal(number)

    def kill_once_it_works():
        relay.working.wait(10)
        os.kill(os.getpid(), number)

    threading.Thread(target=kill_once_it_works).start()
    assert keeper.run() is True
    assert relay.ended.is_set()
    assert signal.getsignal(number) is before


def test_run_can_be_ended_from_another_thread(locks):
    relay = Works()
    keeper = keeper_of(locks, relay=relay)
    threading.Thread(target=lambda: (relay.working.wait(10), keeper.ask_to_stop())).start()
    assert keeper.run() is True


def test_a_refused_run_gives_the_signal_handlers_back(locks):
    first = keeper_of(locks, relay=Works())
    first.start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(AlreadyRunning):
        keeper_of(locks, relay=Works()).run()
    assert signal.getsignal(signal.SIGTERM) is before
    first.stop()


def test_a_taken_health_port_starts_nothing_and_keeps_no_lock(locks, tmp_path):
    first = Keeper(parts=[PartSpec("relay", Works)], locks=locks, health_port=0)
    first.start()
    second = Keeper(
        parts=[PartSpec("apply:analytics", Works)], locks=locks, health_port=first.health_port
    )
    with pytest.raises(OSError, match="in use"):
        second.start()
    assert holder(tmp_path / "apply-analytics.lock") is None
    first.stop()
    assert first.health_port is None


def test_a_keeper_can_be_started_again(locks):
    runners = []

    def fresh():
        runners.append(Works())
        return runners[-1]

    keeper = Keeper(parts=[PartSpec("relay", fresh)], locks=locks)
    for count in (1, 2):
        keeper.start()
        wait_until(lambda count=count: len(runners) == count and runners[-1].working.is_set())
        assert keeper.stop()


SPECS = [PartSpec(n, Works) for n in ("relay", "apply:a", "apply:b", "handlers:mail", "retention")]


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (None, ["relay", "apply:a", "apply:b", "handlers:mail", "retention"]),
        (["relay"], ["relay"]),
        (["apply:b", "relay"], ["relay", "apply:b"]),
        (["apply"], ["apply:a", "apply:b"]),
        (["handlers", "retention"], ["handlers:mail", "retention"]),
    ],
)
def test_only_chooses_parts_by_name_or_kind(only, names):
    assert [spec.name for spec in choose(SPECS, only)] == names


def test_an_unknown_part_is_refused_with_the_list_of_parts():
    with pytest.raises(ConfigurationError, match=r"no part 'aply:a'.*relay, apply:a"):
        choose(SPECS, ["aply:a"])


def test_no_part_at_all_is_refused():
    with pytest.raises(ConfigurationError, match="Nothing to keep"):
        choose([PartSpec("relay", Works)], ["handlers"])
