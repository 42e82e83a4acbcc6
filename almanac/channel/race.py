"""Run one contest on both databases, take both times, and compare the answers."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import levada
from almanac.calendar_events.models import EconomicEvent

from .contests import Contest
from .places import REPLICA, SOURCE, gate

STARTS = 3
"""How often a race is run again when somebody wrote in the middle of it."""
ARRIVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class Lap:
    """One database's part: its answer and how long it took, in ms."""

    answer: list[Any]
    took_ms: float


@dataclass(frozen=True, slots=True)
class RaceResult:
    """Both times, the number of rows, and whether the two answers are equal, row by row."""

    slug: str
    source_ms: float
    replica_ms: float
    rows: int
    equal: bool

    def to_json(self) -> dict[str, Any]:
        """What the page shows; the texts are finished."""
        return {
            "slug": self.slug,
            "source_ms": self.source_ms,
            "replica_ms": self.replica_ms,
            "slowest_ms": max(self.source_ms, self.replica_ms),
            "source": milliseconds(self.source_ms),
            "replica": milliseconds(self.replica_ms),
            "rows": f"{self.rows:,} {'row' if self.rows == 1 else 'rows'}",
            "equal": self.equal,
            "verdict": verdict(self),
        }


def run(contest: Contest) -> RaceResult:
    """
    Ask the source, wait until the replica has everything the source saw, ask the replica.

    If the answers differ because somebody committed in between, the race is
    run again. Raises levada.errors.Timeout if the replica does not catch up,
    NoReplica where there is none.
    """
    with gate.reading():
        for _ in range(STARTS):
            before = levada.position()
            source = lap(contest, SOURCE)
            levada.wait_for(REPLICA, levada.position(), timeout_s=ARRIVAL_S)
            replica = lap(contest, REPLICA)
            equal = source.answer == replica.answer
            if equal or levada.position() == before:
                break
    return RaceResult(contest.slug, source.took_ms, replica.took_ms, len(source.answer), equal)


def lap(contest: Contest, alias: str) -> Lap:
    """Run the contest's queryset on `alias`, rows into Python included."""
    events = EconomicEvent.objects.using(alias)
    started = perf_counter()
    answer = list(contest.ask(events))
    return Lap(answer, (perf_counter() - started) * 1000)


def verdict(result: RaceResult) -> str:
    """Say who won, by how much, in words."""
    if not result.equal:
        return "the answers differ"
    slow, fast = result.source_ms, result.replica_ms
    if slow >= fast:
        return f"replica {factor(slow / fast)}"
    return f"source {factor(fast / slow)}"


def factor(ratio: float) -> str:
    """Write 1.3 as 1.3× faster, 41.2 as 41× faster."""
    return f"{ratio:,.0f}× faster" if ratio >= 10 else f"{ratio:.1f}× faster"


def milliseconds(value: float) -> str:
    """Write a time with the digits that mean something: 0.21 ms, 4.2 ms, 1,204 ms."""
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return f"{value:,.{digits}f} ms"
