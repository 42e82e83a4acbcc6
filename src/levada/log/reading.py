"""
Where a batch may end: the one rule of reading, for every log that keeps its records itself.

A batch may end where an append ended, and between two neighbouring records
of different known transactions, because rows of one transaction stand together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..changes import Batch, Position, Record
from ..errors import ForeignPosition, LogCorrupt, PositionLost

TRANSACTION = Record._fields.index("transaction")

Rows = Sequence[tuple[Any, ...]]


class TopicView(Protocol):
    """One topic at one moment."""

    first: int
    """Offset of the oldest record kept."""
    boundary: int
    """Offset after the last record that readers may see."""

    def rows(self, start: int, stop: int) -> list[tuple[Any, ...]]:
        """Return the records with start <= offset < stop."""

    def last_end(self, start: int, stop: int) -> int:
        """Return the greatest end of a whole append in (start, stop], `start` if there is none."""

    def next_end(self, after: int) -> int:
        """Return the smallest end of a whole append that is greater than `after`."""


def check_log(position: Position, epoch: str, name: str) -> None:
    """Raise ForeignPosition unless `position` is one of the log `name` of `epoch`."""
    if position.epoch != epoch:
        raise ForeignPosition(
            f"position {position} belongs to another log than {name} (epoch {epoch}). "
            f"If the log was replaced, run: manage.py levada rebuild"
        )


def check_kept(position: Position, view: TopicView, name: str) -> None:
    """Raise PositionLost below what `view` keeps, LogCorrupt beyond its end."""
    if position.offset < view.first:
        raise PositionLost(
            f"{name} no longer holds record {position.offset} of topic {position.topic!r}: "
            f"retention has passed it, the oldest is {view.first}. "
            f"Run: manage.py levada rebuild"
        )
    if position.offset > view.boundary:
        raise LogCorrupt(
            f"{name} ends at {view.boundary} of topic {position.topic!r}, but a reader has "
            f"already come to {position.offset}: the log was cut short or restored from an older "
            f"copy. Move the file away and run: manage.py levada rebuild"
        )


def read_batch(view: TopicView, position: Position, limit: int, *, split: bool) -> Batch:
    """Return the batch that `Log.read` promises; `position` is within the view."""
    if limit < 1:
        raise ValueError(f"limit is {limit}; a batch holds at least 1 record")
    start, stop = position.offset, min(position.offset + limit, view.boundary)
    if stop == view.boundary:
        return _batch(position, view.rows(start, stop))
    # One record more than asked for shows whether a transaction ends exactly at the limit.
    rows = view.rows(start, stop + 1)
    cut = max(view.last_end(start, stop) - start, last_cut(rows, limit))
    if cut:
        return _batch(position, rows[:cut])
    if split:
        return _batch(position, rows[:limit], whole=False)
    rows += view.rows(stop + 1, view.next_end(stop))
    return _batch(position, rows[: first_cut(rows, limit)])


def _batch(start: Position, rows: list[tuple[Any, ...]], whole: bool = True) -> Batch:
    return Batch(rows, start, Position(start.epoch, start.topic, start.offset + len(rows)), whole)


def last_cut(rows: Rows, limit: int) -> int:
    """Return the greatest n <= limit so that a transaction ends after n rows; 0 for none."""
    for n in range(min(limit, len(rows) - 1), 0, -1):
        if _parts(rows, n):
            return n
    return 0


def first_cut(rows: Rows, after: int) -> int:
    """Return the smallest n > after so that a transaction ends after n rows; all of them else."""
    for n in range(after + 1, len(rows)):
        if _parts(rows, n):
            return n
    return len(rows)


def _parts(rows: Rows, n: int) -> bool:
    before, after = rows[n - 1][TRANSACTION], rows[n][TRANSACTION]
    return before is not None and after is not None and before != after
