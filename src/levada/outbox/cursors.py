"""
Producer cursors: how the relay writes down which rows of an outbox it has relayed.

SQLite commits one transaction after the other, so the highest id is enough.
PostgreSQL commits concurrently: there the cursor is a snapshot, as
`pg_current_snapshot()` writes it, and a row belongs to the next batch if its
transaction was invisible then and is visible now.
https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT

What lies between two looks is a *window*. A window larger than a batch is
relayed in parts; the cursor then is `start/end/…`, with the part that is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..errors import ForeignPosition


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    Which transactions had committed at one moment.

    Those with a number below `xmax` that are not in `running`.
    """

    xmin: int
    xmax: int
    running: tuple[int, ...]

    @classmethod
    @lru_cache(maxsize=16)  # verify asks for each record of a batch whether one snapshot sees it
    def parse(cls, text: str) -> Snapshot:
        """Read `xmin:xmax:xip,xip`. Raises ForeignPosition for anything else."""
        try:
            xmin, xmax, running = text.split(":")
            return cls(int(xmin), int(xmax), tuple(int(x) for x in running.split(",") if x))
        except ValueError as error:
            raise ForeignPosition(_not_a_cursor(text, "PostgreSQL")) from error

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"

    def sees(self, transaction: int) -> bool:
        """Say whether `transaction` was over, for good or ill, at this moment."""
        return transaction < self.xmax and transaction not in self.running

    def covers(self, other: Snapshot) -> bool:
        """Say whether this moment sees every transaction that `other` sees."""
        beyond = sum(x >= self.xmax for x in other.running)
        return other.xmax - self.xmax <= beyond and all(
            x in other.running for x in self.running if x < other.xmax
        )


NOTHING = Snapshot(1, 1, ())
"""Sees no transaction at all: where a relay starts."""


@dataclass(frozen=True, slots=True)
class SnapshotCursor:
    """
    A relay's cursor on PostgreSQL: `start` or `start/end/done/inside`.

    Everything visible in `start` is relayed. Between `start` and `end`
    transactions are relayed in the order of their last outbox id: all whose
    last id is at most `done`, and of the next one the rows up to id `inside`.
    """

    start: Snapshot
    end: Snapshot | None = None
    done: int = 0
    inside: int = 0

    @classmethod
    def parse(cls, text: str | None) -> SnapshotCursor:
        """Read what `str(cursor)` wrote; None is the beginning. Raises ForeignPosition."""
        if text is None:
            return cls(NOTHING)
        start, *rest = text.split("/")
        if not rest:
            return cls(Snapshot.parse(start))
        try:
            end, done, inside = rest
            return cls(Snapshot.parse(start), Snapshot.parse(end), int(done), int(inside))
        except ValueError as error:
            raise ForeignPosition(_not_a_cursor(text, "PostgreSQL")) from error

    def __str__(self) -> str:
        if self.end is None:
            return str(self.start)
        return f"{self.start}/{self.end}/{self.done}/{self.inside}"

    def reaches(self, other: SnapshotCursor) -> bool:
        """Say whether this cursor is `other` or a later one of the same relay."""
        if self.start == other.start:
            return (self.done, self.inside) >= (other.done, other.inside)
        return self.start.covers(other.end or other.start)


@dataclass(frozen=True, slots=True)
class IdCursor:
    """
    A relay's cursor on SQLite: `start` or `start/end/done`.

    Every id up to `start` is relayed, of those up to `end` the ones up to `done`.
    Only `start` is certain to be a border between two transactions.
    """

    start: int
    end: int = 0
    done: int = 0

    @classmethod
    def parse(cls, text: str | None) -> IdCursor:
        """Read what `str(cursor)` wrote; None is the beginning. Raises ForeignPosition."""
        try:
            match [int(part) for part in ("0" if text is None else text).split("/")]:
                case [start]:
                    return cls(start)
                case [start, end, done]:
                    return cls(start, end, done)
        except ValueError:
            pass
        raise ForeignPosition(_not_a_cursor(str(text), "SQLite"))

    def __str__(self) -> str:
        return f"{self.start}/{self.end}/{self.done}" if self.end else str(self.start)

    @property
    def relayed(self) -> int:
        """The highest id that is relayed."""
        return max(self.start, self.done)


def _not_a_cursor(text: str, vendor: str) -> str:
    return (
        f"{text!r} is no position of a database on {vendor}. If the source database was moved "
        f"to another vendor, start a new log and run: manage.py levada rebuild"
    )
