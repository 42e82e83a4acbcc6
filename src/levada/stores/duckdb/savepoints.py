"""
Savepoints, which DuckDB has not: a transaction's statements are kept, and run again up to a mark.

While a transaction is open its connection keeps a `Journal` of the statements
that wrote. ROLLBACK TO SAVEPOINT rolls DuckDB's transaction back, begins a new
one and runs the journal up to the mark again (`replay.py`), comparing every
row count and every returned row with what was told the first time.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Any

import duckdb

SAVEPOINT_BYTES = 64 * 2**20
"""How much a transaction's journal may hold, unless OPTIONS says otherwise: 100,000 saved rows."""


@dataclass(slots=True)
class Written:
    """
    One statement that wrote, and what it answered.

    rows: how many, -1 for DDL. returned: a digest of the rows it gave, None
    where it gave none. drawn: column to the values its sequence gave. first:
    column to the first of them, where a row left out may have drawn it.
    ordered: whether the rows come in one order only. now_us: the transaction's
    time in microseconds, where the statement asks for it. table: into which it
    inserted.
    """

    sql: str
    params: Any
    arrow: Mapping[str, Any] | None
    rows: int = -1
    returned: int | None = None
    drawn: dict[str, array[int]] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    ordered: bool = False
    now_us: int | None = None
    table: str | None = None

    @property
    def size_bytes(self) -> int:
        """About how much memory keeping it takes."""
        size = 300 + len(self.sql)
        if self.params:
            values = self.params.values() if isinstance(self.params, dict) else self.params
            size += sum(map(_size_of, values))
        if self.arrow:
            size += sum(table.nbytes for table in self.arrow.values())
        return size + sum(8 * len(values) for values in self.drawn.values())


@dataclass(frozen=True, slots=True)
class Mark:
    """A savepoint: how many statements had been kept, and how many had been written, before it."""

    name: str
    kept: int
    written: int


class Journal:
    """What one transaction wrote, up to `limit_bytes`; its savepoints."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything: a transaction begins or ended."""
        self.entries: list[Written] = []
        self.marks: list[Mark] = []
        self.written = 0
        self.size_bytes = 0
        self.dropped = False
        self.defines = False

    def add(self, entry: Written) -> None:
        """Keep what was just written; beyond the limit nothing is kept any more."""
        self.written += 1
        if self.dropped:
            return
        self.entries.append(entry)
        self.size_bytes += entry.size_bytes
        if self.size_bytes > self.limit_bytes:
            self.dropped, self.entries = True, []

    def mark(self, name: str) -> None:
        """Set the savepoint `name` here; of two with one name the later counts."""
        self.marks.append(Mark(name, len(self.entries), self.written))

    def release(self, name: str) -> None:
        """Drop the savepoint `name` and those set after it. Raises OperationalError."""
        del self.marks[self._index(name) :]

    def back_to(self, name: str) -> Mark:
        """Return the savepoint `name`, dropping those set after it. Raises OperationalError."""
        index = self._index(name)
        del self.marks[index + 1 :]
        return self.marks[index]

    def cut(self, mark: Mark) -> None:
        """Forget what was written after `mark`."""
        del self.entries[mark.kept :]
        self.written = mark.written
        self.size_bytes = sum(entry.size_bytes for entry in self.entries)

    def _index(self, name: str) -> int:
        for index in reversed(range(len(self.marks))):
            if self.marks[index].name == name:
                return index
        raise duckdb.OperationalError(
            f"This transaction has no savepoint {name!r}. Set it first, with SAVEPOINT in the same "
            f"transaction; a commit or rollback of the whole transaction ends it."
        )


def digest(rows: list[tuple[Any, ...]], *, ordered: bool) -> int:
    """Return a number that tells these rows from others; unless `ordered`, in any order."""
    if ordered:
        return hash(repr(rows))
    return hash(tuple(sorted(map(repr, rows))))


def _size_of(value: Any) -> int:
    size = getsizeof(value)
    if isinstance(value, (list, tuple)):
        return size + sum(map(_size_of, value))
    return size
