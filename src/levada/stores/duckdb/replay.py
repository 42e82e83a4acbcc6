"""
A transaction's statements run again, exactly as they ran the first time.

Three things would come out otherwise. A sequence does not take back what it
gave: while the statements run again, a temporary sequence of the same name
gives the values of the first time, and nobody else's. The transaction's time
is another: temporary macros tell the first one. What else changed, another
transaction's commit or a volatile function, is found by comparing row counts
and returned rows, and raises SavepointLost.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...errors import SavepointLost
from .parameters import literal
from .savepoints import Written, digest
from .statements import (
    CACHED_CHARACTERS,
    Insert,
    defines,
    last_name,
    read,
    sets_sequences,
    tells_time,
    volatile_call,
)

if TYPE_CHECKING:
    from .connection import Session

DEFAULTS = """
    SELECT lower(column_name), column_default FROM duckdb_columns()
    WHERE lower(table_name) = lower(?) AND column_default IS NOT NULL
"""
SEQUENCES = (
    "SELECT lower(sequence_name), increment_by FROM duckdb_sequences() "
    "WHERE NOT temporary AND database_name = current_database()"
)
NEXT = (
    "SELECT coalesce(last_value + increment_by, start_value) FROM duckdb_sequences() "
    "WHERE lower(sequence_name) = lower(?) ORDER BY temporary DESC LIMIT 1"
)
NOW = "SELECT epoch_us(now())"
TIMES = {
    "now": "{}",
    "current_timestamp": "{}",
    "get_current_timestamp": "{}",
    "transaction_timestamp": "{}",
    "current_date": "CAST({} AS DATE)",
    "today": "CAST({} AS DATE)",
}
"""The functions that tell the transaction's time, and how to make each of a TIMESTAMPTZ."""

_DRAWS = re.compile(r"(?:CAST\()?nextval\('((?:[^']|'')+)'\)(?: AS \w+\))?", re.IGNORECASE)


def sequence_of(default: str) -> str | None:
    """Return the sequence that a column's default draws from, None where it does nothing else."""
    found = _DRAWS.fullmatch(default.strip())
    return last_name(found[1].replace("''", "'")) if found else None


def unrepeatable(sql: str, insert: Insert | None, defaults: Mapping[str, str]) -> str | None:
    """Return what in the statement, or in a default it uses, no replay can give again."""
    called = volatile_call(sql)
    if called is not None or insert is None:
        return called
    for column, default in defaults.items():
        if insert.omits(column) and sequence_of(default) is None:
            called = volatile_call(default)
            if called is not None:
                return called
    return None


def asks_time(sql: str, insert: Insert | None, defaults: Mapping[str, str]) -> bool:
    """Say whether the statement, or a default it uses, tells the transaction's time."""
    if tells_time(sql):
        return True
    return insert is not None and any(
        insert.omits(column) and tells_time(default) for column, default in defaults.items()
    )


def defaults_of(session: Session, table: str) -> dict[str, str]:
    """Return the defaults of a table's columns, by lower-case name."""
    session.run(DEFAULTS, [table], None, begin=False)
    return dict(session.rows(None))


@dataclass(frozen=True, slots=True)
class Preparation:
    """
    How to run a statement so that it can be run again.

    sql: with RETURNING for the columns a sequence fills. drawn: these columns.
    asked: how many columns were added at the end of what it returns.
    asks_time: whether it tells the transaction's time.
    """

    sql: str
    drawn: tuple[str, ...] = ()
    asked: int = 0
    asks_time: bool = False


def prepare(sql: str, insert: Insert | None, defaults: Mapping[str, str]) -> Preparation:
    """Return how to run `sql`. defaults: those of the table it inserts into."""
    if len(sql) > CACHED_CHARACTERS:
        return _prepared(sql, insert, tuple(defaults.items()))
    return _cached_prepared(sql, insert, tuple(defaults.items()))


def _prepared(sql: str, insert: Insert | None, items: tuple[tuple[str, str], ...]) -> Preparation:
    defaults = dict(items)
    timed = asks_time(sql, insert, defaults)
    if insert is None:
        return Preparation(sql, asks_time=timed)
    drawn = tuple(
        column
        for column, default in items
        if insert.omits(column) and sequence_of(default) is not None
    )
    missing = [column for column in drawn if not insert.returns(column)]
    if not missing or not insert.plain:
        return Preparation(sql, drawn, asks_time=timed)
    told = ", ".join(map(_quote, missing))
    clause = " RETURNING" if insert.returning is None else ","
    return Preparation(f"{sql}{clause} {told}", drawn, len(missing), timed)


_cached_prepared = lru_cache(maxsize=512)(_prepared)


def next_of(session: Session, sequence: str) -> int:
    """
    Return the value that `sequence` will give next, drawing none.

    It is another after `setval(…, false)`, which DuckDB does not show: then a
    replay finds other keys, and says so.
    """
    session.run(NEXT, [sequence], None, begin=False)
    return session.rows(None)[0][0]


class Replay:
    """
    Runs `entries` again in a new transaction of `session`.

    Raises SavepointLost, and what DuckDB raises for a statement that fails
    now; then the transaction is for the caller to roll back.
    """

    def __init__(self, session: Session, entries: Sequence[Written]) -> None:
        self._session = session
        self._entries = entries

    def run(self) -> None:
        """Run all entries."""
        self._session.restart()
        self._shared = dict(self._read(SEQUENCES))
        self._defaults: dict[str, dict[str, str]] = {}
        self._shadows: set[str] = set()
        self._following: dict[str, int] = {}
        self._now_us: int | None = None
        for entry in self._entries:
            if any(name.lower() in self._shared for name in sets_sequences(entry.sql)):
                continue  # no rollback undid it
            self._prepare(entry)
            self._repeat(entry)
            if defines(entry.sql):
                self._defaults = {}
        self._clean_up()

    def _prepare(self, entry: Written) -> None:
        """Let sequences and clock give what they gave. Raises SavepointLost."""
        insert = read(entry.sql).insert
        defaults = self._defaults_of(entry.table)
        called = unrepeatable(entry.sql, insert, defaults)
        if called is not None:
            raise SavepointLost(
                f"A statement uses {called}, which may do something else each time, so the "
                f"transaction cannot go back to its savepoint: {_shown(entry)}. "
                f"Give it the value as a parameter, or keep it out of the outer transaction."
            )
        for column, default in defaults.items():
            sequence = sequence_of(default)
            if sequence is None or insert is None or not insert.omits(column):
                continue
            if column in entry.first:
                self._set(sequence, entry.first[column])
            elif column in entry.drawn:
                drawn, name = entry.drawn[column], sequence.lower()
                self._set(sequence, drawn[0])
                if name in self._shared:
                    self._following[name] = drawn[-1] + self._shared[name]
            elif entry.rows != 0:
                raise SavepointLost(
                    f"Nobody knows which values of {sequence} a statement drew, so the "
                    f"transaction cannot go back to its savepoint: {_shown(entry)}. "
                    f"Write INSERT … RETURNING {column}, alone and without a comment."
                )
        if entry.now_us is not None and entry.now_us != self._now_us:
            self._stop_clock(entry.now_us)

    def _defaults_of(self, table: str | None) -> dict[str, str]:
        if table is None:
            return {}
        if table not in self._defaults:
            self._defaults[table] = defaults_of(self._session, table)
        return self._defaults[table]

    def _set(self, sequence: str, value: int) -> None:
        """
        Make `value` the next value of `sequence`.

        For this session alone, where others draw from the sequence too.
        """
        quoted, name = _quote(sequence), sequence.lower()
        if self._following.pop(name, None) == value:
            return
        if name in self._shared and name not in self._shadows:
            self._shadows.add(name)
            self._do(
                f"CREATE TEMP SEQUENCE {quoted} START WITH {value} MINVALUE {-(2**63)} "
                f"MAXVALUE {2**63 - 1} INCREMENT BY {self._shared[name]}"
            )
        else:
            self._read(f"SELECT setval({literal(quoted)}, {value}, false)")

    def _stop_clock(self, now_us: int) -> None:
        self._now_us = now_us
        for name, expression in TIMES.items():
            value = expression.format(f"make_timestamptz(CAST({now_us} AS BIGINT))")
            self._do(f"CREATE OR REPLACE TEMP MACRO {name}() AS {value}")

    def _repeat(self, entry: Written) -> None:
        """Run the statement again. Raises SavepointLost where it does something else."""
        described, counted = self._session.run(entry.sql, entry.params, entry.arrow, begin=False)
        if described is None:
            if counted != entry.rows:
                raise _differs(entry, f"it wrote {counted} rows, the first time {entry.rows}")
        elif digest(self._session.rows(None), ordered=entry.ordered) != entry.returned:
            raise _differs(entry, "it returned other rows")

    def _clean_up(self) -> None:
        """Give the shared sequences and the clock back."""
        for sequence in self._shadows:
            quoted = _quote(sequence)
            self._do(f"DROP SEQUENCE temp.{quoted}")
            # The values were drawn in a transaction that was rolled back. One
            # more is drawn, or the WAL would not know of them after a crash.
            self._read(f"SELECT nextval({literal(quoted)})")
        if self._now_us is not None:
            for name in TIMES:
                self._do(f"DROP MACRO temp.{name}")

    def _do(self, sql: str) -> None:
        self._session.run(sql, None, None, begin=False)

    def _read(self, sql: str) -> list[tuple[Any, ...]]:
        self._session.run(sql, None, None, begin=False)
        return self._session.rows(None)


def drawn_in(rows: Sequence[tuple[Any, ...]], names: Sequence[str], column: str) -> array[int]:
    """Return the values of `column` in returned rows; empty where they are no integers."""
    if column not in names:
        return array("q")
    index = names.index(column)
    values = [row[index] for row in rows]
    return array("q", values) if all(type(value) is int for value in values) else array("q")


def _differs(entry: Written, how: str) -> SavepointLost:
    return SavepointLost(
        f"The transaction cannot go back to its savepoint: a statement run again did not do what "
        f"it had done, {how}: {_shown(entry)}. Most likely another transaction was committed in "
        f"between. Everything was rolled back; run the transaction again."
    )


def _shown(entry: Written) -> str:
    return entry.sql if len(entry.sql) <= 200 else f"{entry.sql[:200]}…"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
