"""
The driver: one DB-API connection, the same whether DuckDB runs here or in another process.

A `Connection` speaks to DuckDB through a *session*: `LocalSession` (below) in
the process that owns the file, `remote.RemoteSession` in every other. A
session is one DuckDB connection with at most one open result; when a second
cursor runs a statement, the first one's remaining rows are read into memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import duckdb

from .dbapi import InterfaceError
from .failures import named

if TYPE_CHECKING:
    import pyarrow

Description = list[tuple[Any, ...]] | None
CHUNK_ROWS = 2_000
"""Rows read at once where the caller does not say: about DuckDB's own vector of 2_048."""


class Session(Protocol):
    """What a `Connection` needs of DuckDB, near or far. Every call may raise `duckdb.Error`."""

    def run(
        self, sql: str, params: Any, arrow: Mapping[str, pyarrow.Table] | None, *, begin: bool
    ) -> tuple[Description, int]:
        """Run one statement, in a new transaction if `begin`; returns description and row count."""

    def rows(self, limit: int | None) -> list[tuple[Any, ...]]:
        """Return the next rows of the open result, all of them for None; [] at the end."""

    def arrow(self, sql: str, params: Any, *, begin: bool) -> pyarrow.Table:
        """Run one query and return all of its rows."""

    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...
    def alive(self) -> bool:
        """Say whether the session still reaches the database it was opened on."""


class Connection:
    """
    A DB-API connection to one DuckDB database, with Arrow in both directions.

    SQL is DuckDB's own here: parameters are `?`, `$1` or `$name`. While
    `autocommit` is False, the first statement begins a transaction.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.autocommit = True
        self.in_transaction = False
        self.closed = False
        self._reading: Cursor | None = None

    def cursor(self) -> Cursor:
        """Return a new cursor in this connection's transaction."""
        return Cursor(self)

    def execute(
        self, sql: str, params: Any = None, *, arrow: Mapping[str, pyarrow.Table] | None = None
    ) -> Cursor:
        """
        Run one statement on a new cursor and return it.

        arrow: tables the statement may read under the given names.
        """
        return self.cursor().execute(sql, params, arrow=arrow)

    def fetch_arrow(self, sql: str, params: Any = None) -> pyarrow.Table:
        """Run one query and return its rows as an Arrow table."""
        self._settle(None)
        table = self.session.arrow(sql, params, begin=self._must_begin())
        self.in_transaction = not self.autocommit or self.in_transaction
        return table

    def begin(self) -> None:
        """Begin a transaction now."""
        self._settle(None)
        self.session.begin()
        self.in_transaction = True

    def commit(self) -> None:
        """Commit the open transaction; nothing where there is none."""
        if self.in_transaction:
            self._settle(None)
            self.in_transaction = False
            self.session.commit()

    def rollback(self) -> None:
        """Roll the open transaction back; nothing where there is none."""
        if self.in_transaction:
            self._settle(None)
            self.in_transaction = False
            self.session.rollback()

    def close(self) -> None:
        """Close; an open transaction is rolled back."""
        if not self.closed:
            self.closed = True
            self._reading = None
            self.session.close()

    def _must_begin(self) -> bool:
        if self.closed:
            raise InterfaceError("the connection is closed")
        return not self.autocommit and not self.in_transaction

    def _settle(self, cursor: Cursor | None) -> None:
        """Let the cursor that still reads keep its rows in memory, unless it is `cursor`."""
        reading, self._reading = self._reading, None
        if reading is not None and reading is not cursor:
            reading._keep_rows()

    def _run(
        self, cursor: Cursor, sql: str, params: Any, arrow: Mapping[str, Any] | None
    ) -> tuple[Description, int]:
        begin = self._must_begin()
        self._settle(cursor)
        try:
            outcome = self.session.run(sql, params, arrow, begin=begin)
        finally:
            # A statement that fails still leaves the transaction it began open.
            self.in_transaction = self.in_transaction or begin
        self._reading = cursor
        return outcome


class Cursor:
    """A DB-API cursor. `description` is None after a statement that has no rows to give."""

    arraysize = 100

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.description: Description = None
        self.rowcount = -1
        self.closed = False
        self._kept: Iterator[tuple[Any, ...]] | None = None

    def execute(
        self, sql: str, params: Any = None, *, arrow: Mapping[str, pyarrow.Table] | None = None
    ) -> Cursor:
        """Run one statement; `params` fit its `?`, `$1` or `$name`."""
        self._check_open()
        self._kept = None
        self.description, self.rowcount = self.connection._run(self, sql, params, arrow)
        return self

    def executemany(self, sql: str, rows: Sequence[Any]) -> Cursor:
        """Run one statement for each of `rows`; `rowcount` becomes the sum."""
        total = 0
        for params in rows:
            self.execute(sql, params)
            total += max(0, self.rowcount)
        self.rowcount = total
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, None after the last."""
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return up to `size` rows, [] after the last."""
        self._check_open()
        size = size or self.arraysize
        if self._kept is not None:
            return list(islice(self._kept, size))
        return self._read(size)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the remaining rows."""
        self._check_open()
        return list(self._kept) if self._kept is not None else self._read(None)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while rows := self.fetchmany(CHUNK_ROWS):
            yield from rows

    def close(self) -> None:
        """Let go of the result; further use raises `duckdb.ProgrammingError`."""
        self.closed = True
        self._kept = None
        if self.connection._reading is self:
            self.connection._reading = None

    def setinputsizes(self, sizes: Any) -> None:
        """Do nothing, as DB-API allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing, as DB-API allows."""

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _read(self, size: int | None) -> list[tuple[Any, ...]]:
        if self.connection._reading is not self:
            return []
        rows = self.connection.session.rows(size)
        if size is None or len(rows) < size:
            self.connection._reading = None
        return rows

    def _keep_rows(self) -> None:
        self._kept = iter(self.connection.session.rows(None))

    def _check_open(self) -> None:
        if self.closed:
            raise duckdb.ProgrammingError("the cursor is closed")


class LocalSession:
    """A DuckDB connection in this process."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: str) -> None:
        self._duckdb = connection
        self._path = path
        self._rows: Any = connection

    def run(
        self, sql: str, params: Any, arrow: Mapping[str, pyarrow.Table] | None, *, begin: bool
    ) -> tuple[Description, int]:
        """See `Session.run`."""
        with named(self._path):
            if begin:
                self._duckdb.begin()
            if arrow:
                return self._run_with(arrow, sql, params)
            self._rows = self._duckdb
            self._duckdb.execute(sql, params)
            return self._outcome()

    def rows(self, limit: int | None) -> list[tuple[Any, ...]]:
        """See `Session.rows`."""
        with named(self._path):
            return self._rows.fetchall() if limit is None else self._rows.fetchmany(limit)

    def arrow(self, sql: str, params: Any, *, begin: bool) -> pyarrow.Table:
        """See `Session.arrow`."""
        with named(self._path):
            if begin:
                self._duckdb.begin()
            return self._duckdb.sql(sql, params=params).to_arrow_table()

    def begin(self) -> None:
        """Begin a transaction."""
        with named(self._path):
            self._duckdb.begin()

    def commit(self) -> None:
        """Commit the transaction."""
        with named(self._path):
            self._duckdb.commit()

    def rollback(self) -> None:
        """Roll the transaction back."""
        with named(self._path):
            self._duckdb.rollback()

    def close(self) -> None:
        """Close this connection; the database stays open for others."""
        self._duckdb.close()

    def alive(self) -> bool:
        """Say whether DuckDB still answers on this connection."""
        try:
            self._duckdb.execute("SELECT 1").fetchall()
        except duckdb.Error:
            return False
        return True

    def _run_with(
        self, arrow: Mapping[str, pyarrow.Table], sql: str, params: Any
    ) -> tuple[Description, int]:
        """Run with `arrow` visible; the rows are read before the tables go."""
        for name, table in arrow.items():
            self._duckdb.register(name, table)
        try:
            self._rows = self._duckdb
            self._duckdb.execute(sql, params)
            outcome = self._outcome()
            self._rows = _Rows([] if outcome[0] is None else self._rows.fetchall())
        finally:
            for name in arrow:
                self._forget(name)
        return outcome

    def _forget(self, name: str) -> None:
        try:
            self._duckdb.unregister(name)
        except duckdb.TransactionException:
            # The failed transaction takes the view with it when it is rolled back.
            return

    def _outcome(self) -> tuple[Description, int]:
        """Read description and row count of what was just run."""
        described = self._duckdb.description
        if described is None:
            return None, -1
        counted = self._duckdb.rowcount
        if counted >= 0:
            self._duckdb.fetchall()
            return None, counted
        if any(_zoned(column) for column in described):
            self._rows = _Rows(_zoned_rows(self._duckdb))
        return [(column[0], str(column[1]), *column[2:]) for column in described], -1


class _Rows:
    """Rows already read, offered as DuckDB's connection offers them."""

    def __init__(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self._left = iter(rows)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._left)

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        return list(islice(self._left, size))


def _zoned(column: tuple[Any, ...]) -> bool:
    return "WITH TIME ZONE" in str(column[1])


def _zoned_rows(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    """Read rows with TIMESTAMPTZ columns by way of Arrow: DuckDB itself would want pytz."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "makes an extra copy": it does
        table = connection.to_arrow_table()
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
