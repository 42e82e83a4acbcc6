"""The log loses what is old and read by all, and nothing else."""

import threading

from levada.changes import CHANGES, OutboxRow, Position
from levada.keeper import parts
from levada.keeper.parts import Retention
from levada.log.memory import MemoryLog


def log_of(*numbers):
    log = MemoryLog()
    for number in numbers:
        row = OutboxRow(
            CHANGES, "shop.Order", "c", f"[{number}]", None, "{}", "f", number, number, "2026", None
        )
        expected = str(number - 1) if number > numbers[0] else None
        log.append([row], source="default", expected=expected, cursor=str(number))
    return log


def test_what_a_group_has_not_read_is_kept_however_old(settings):
    settings.LEVADA = {"LOG_RETENTION_S": 1e-9}
    log = log_of(1, 2, 3)
    log.commit("slow", Position(log.epoch, CHANGES, 1))
    assert Retention(log).prune() == 1
    assert log.beginning(CHANGES).offset == 1


def test_what_is_young_is_kept_even_when_all_have_read_it(settings):
    settings.LEVADA = {"LOG_RETENTION_S": 3600}
    log = log_of(1, 2, 3)
    log.commit("fast", log.end(CHANGES))
    assert Retention(log).prune() == 0


def test_it_prunes_until_it_is_stopped(settings, monkeypatch):
    settings.LEVADA = {"LOG_RETENTION_S": 1e-9}
    monkeypatch.setattr(parts, "RETENTION_EVERY_S", 0.001)
    log, stop, turns = log_of(1), threading.Event(), []
    retention = Retention(log)

    def prune():
        turns.append(log.prune(older_than_s=0))
        if len(turns) == 3:
            stop.set()
        return turns[-1]

    retention.prune = prune
    retention.run(stop)
    assert len(turns) == 3
