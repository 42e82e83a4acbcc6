"""A failed part is opened again, a stopped one ends with its batch, and its state can be read."""

import threading

import pytest

from levada.errors import PoisonRecord, StoreBusy
from levada.keeper import supervisor
from levada.keeper.supervisor import Part, PartSpec, backoff_s
from tests.conditions import wait_until


class Scripted:
    """A runner that raises what its script says, one entry a run, then works until told to stop."""

    def __init__(self, *script):
        self.script = list(script)
        self.opened = 0
        self.closed = 0
        self.working = threading.Event()

    def spec(self, name="relay"):
        return PartSpec(name, lambda: self)

    def __enter__(self):
        self.opened += 1
        return self

    def __exit__(self, *exc):
        self.closed += 1

    def step(self):
        return 3

    def run(self, stop):
        if self.script:
            raise self.script.pop(0)
        self.step()
        self.working.set()
        stop.wait()


@pytest.fixture
def started(monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_S", 0.001)
    parts = []

    def start(runner, name="relay"):
        part = Part(runner.spec(name))
        parts.append(part)
        part.start()
        return part

    yield start
    for part in parts:
        part.ask_to_stop()
        assert part.join(10)


def test_a_part_runs_until_it_is_told_to_stop(started):
    runner = Scripted()
    part = started(runner)
    assert runner.working.wait(10)
    assert part.status().state == "running"
    part.ask_to_stop()
    assert part.join(10)
    assert part.status().state == "stopped"
    assert (runner.opened, runner.closed) == (1, 1)


def test_a_failed_part_is_closed_and_opened_again(started):
    runner = Scripted(StoreBusy("busy"), OSError("gone"))
    part = started(runner)
    assert runner.working.wait(10)
    status = part.status()
    assert (status.state, status.restarts, status.error) == ("running", 2, "")
    assert (runner.opened, runner.closed) == (3, 2)


def test_a_part_whose_opening_fails_is_tried_again(started):
    runner = Scripted()
    enter, failures = runner.__enter__, [OSError("no such file")]

    class Opens:
        def __enter__(self):
            if failures:
                raise failures.pop()
            return enter()

        def __exit__(self, *exc):
            pass

    part = Part(PartSpec("relay", Opens))
    part.start()
    assert runner.working.wait(10)
    part.ask_to_stop()
    assert part.join(10)
    assert part.status().restarts == 1


def test_a_part_that_ends_by_itself_counts_as_failed(started, monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_S", 30)
    runner = Scripted()
    runner.run = lambda stop: None
    part = started(runner)
    wait_until(lambda: part.status().state == "waiting")
    assert "nobody asked" in part.status().error


def test_what_only_a_person_can_mend_halts_the_part(started):
    part = started(Scripted(PoisonRecord("record 7 cannot be taken. Run: …")))
    wait_until(lambda: part.status().state == "halted")
    assert part.status().error.startswith("record 7")
    assert not part.status().up


def test_a_halted_part_goes_on_once_the_cause_is_gone(started, monkeypatch):
    monkeypatch.setattr(supervisor, "HALTED_S", 0.001)
    runner = Scripted(PoisonRecord("record 7"))
    part = started(runner)
    assert runner.working.wait(10)
    assert part.status().up


def test_a_waiting_part_stops_without_waiting_to_the_end(started, monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_S", 30)
    part = started(Scripted(StoreBusy("busy")))
    wait_until(lambda: part.status().state == "waiting")
    part.ask_to_stop()
    assert part.join(10)


def test_records_and_batches_are_counted(started):
    runner = Scripted()
    part = started(runner)
    assert runner.working.wait(10)
    assert (part.status().records, part.status().batches) == (3, 1)


def test_a_runner_that_tries_again_by_itself_is_not_reported_as_well(started):
    """The relay waits out a database restart inside run(): /healthz must say so meanwhile."""
    runner = Scripted()
    part = started(runner)
    assert runner.working.wait(10)
    runner.error = StoreBusy("the database is starting up")
    assert (part.status().state, part.status().up) == ("waiting", False)
    assert part.status().error == "the database is starting up"
    runner.error = PoisonRecord("record 7")
    assert part.status().state == "halted"
    runner.error = None
    assert part.status().state == "running"


def test_work_is_told_now_and_then_and_idleness_never(caplog):
    caplog.set_level("INFO", "levada.keeper")
    now = [0.0]
    runner = Scripted()
    part = Part(runner.spec(), clock=lambda: now[0])
    part._count(runner)
    runner.step()
    now[0] = supervisor.REPORT_S
    runner.step()
    runner.step()
    now[0] *= 2
    runner.step()
    assert [r.getMessage() for r in caplog.records] == [
        "6 records in 2 batches",
        "6 records in 2 batches",
    ]
    assert caplog.records[0].records == 6


def test_backoff_doubles_up_to_a_limit():
    assert [backoff_s(n) for n in (1, 2, 3)] == [0.2, 0.4, 0.8]
    assert backoff_s(50) == supervisor.LONGEST_BACKOFF_S


def test_a_part_that_ran_long_begins_again_with_the_shortest_backoff(monkeypatch):
    """A relay that lost its database once a day must not wait 30 s after a month."""
    pauses, now = [], [0.0]

    class Ages(Scripted):
        def run(self, stop):
            now[0] += supervisor.STEADY_S
            super().run(stop)

    monkeypatch.setattr(supervisor, "backoff_s", lambda n: pauses.append(n) or 0.0)
    runner = Ages(*[OSError("gone") for _ in range(4)])
    part = Part(runner.spec(), clock=lambda: now[0])
    part.start()
    assert runner.working.wait(10)
    part.ask_to_stop()
    assert part.join(10)
    assert pauses == [1, 1, 1, 1]


def test_a_bug_is_logged_with_its_traceback_and_an_expected_error_without(started, caplog):
    started(Scripted(ZeroDivisionError("bug")))
    wait_until(lambda: any("bug" in r.getMessage() for r in caplog.records))
    started(Scripted(StoreBusy("busy")))
    wait_until(lambda: any("busy" in r.getMessage() for r in caplog.records))
    by_message = {r.getMessage().partition(";")[0]: r for r in caplog.records}
    assert by_message["bug"].exc_info
    assert not by_message["busy"].exc_info
