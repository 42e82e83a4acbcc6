"""
The driver: one DB-API connection, the same whether DuckDB runs here or in another process.

A `Connection` speaks to DuckDB through a *session*: `instance.LocalSession` in
the process that owns the file, `remote.RemoteSession` in every other. A
session is one DuckDB connection with at most one open result; when a second
cursor runs a statement, the first one's remaining rows are set aside, many of
them in a temporary file.
"""

from __future__ import annotations

import datetime
import re
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import duckdb

from ...errors import SavepointLost, StoreError, StoreFull, StoreGone
from . import older
from .dbapi import InterfaceError
from .kept import KeptRows
from .replay import NOW, Replay, defaults_of, drawn_in, next_of, prepare, sequence_of
from .savepoints import Journal, Written, digest
from .statements import SavepointCommand, read
from .wire import BATCH_ROWS

if TYPE_CHECKING:
    import pyarrow

Description = list[tuple[Any, ...]] | None
REOPEN_S = 30.0
"""How long a connection looks for the new owner while owners come and go."""

CHUNK_ROWS = 2_048
"""Rows read at once where the caller does not say: DuckDB's own vector."""


class Session(Protocol):
    """What a `Connection` needs of DuckDB, near or far. Every call may raise `duckdb.Error`."""

    @property
    def defaults(self) -> dict[str, dict[str, str]]:
        """Tables' columns' defaults as they were read last: for whoever uses them to check."""

    def run(
        self, sql: str, params: Any, arrow: Mapping[str, pyarrow.Table] | None, *, begin: bool
    ) -> tuple[Description, int]:
        """Run one statement, in a new transaction if `begin`; returns description and row count."""

    def rows(self, limit: int | None) -> list[tuple[Any, ...]]:
        """Return the next rows of the open result, all of them for None; [] at the end."""

    def arrow(self, sql: str, params: Any, *, begin: bool) -> pyarrow.Table:
        """Run one query and return all of its rows."""

    def open_arrow(self, sql: str, params: Any, *, batch_rows: int, begin: bool) -> pyarrow.Schema:
        """Run one query, whose rows `next_arrow` then reads; returns their types."""

    def next_arrow(self) -> pyarrow.RecordBatch | None:
        """Return the next rows of the query that `open_arrow` ran, None after the last."""

    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def restart(self) -> None:
        """
        Roll back and begin a new transaction, its snapshot taken, with no commit in between.

        So a row the transaction had written is found changed, or in conflict.
        """

    def close(self) -> None: ...
    def alive(self) -> bool:
        """Ask the database whether it answers."""

    def gone(self) -> bool:
        """Say, without asking the database, whether the session is known to lead nowhere."""


def _in_turn(method: Callable[..., Any]) -> Any:
    """Let one thread at a time into a connection, or into a cursor of it."""

    @wraps(method)
    def alone(self: Any, *args: Any, **named: Any) -> Any:
        with self.lock:
            return method(self, *args, **named)

    return alone


class Connection:
    """
    A DB-API connection to one DuckDB database, with Arrow in both directions.

    SQL is DuckDB's own here: parameters are `?`, `$1` or `$name`. While
    `autocommit` is False, the first statement begins a transaction.

    When the database changes hands between two transactions, a new session is
    opened without a word, and a statement that only reads is run once more if
    its owner ended before it answered. Everything else that was under way
    raises StoreGone.

    Several threads may share it, their statements and transactions too.

    savepoint_bytes: how much a transaction may write and still have savepoints;
        0 for none at all. A transaction begun by `begin()` never has any.
    """

    def __init__(self, open_session: Callable[[], Session], savepoint_bytes: int = 0) -> None:
        self.lock = threading.RLock()
        self._open_session = open_session
        self.session = open_session()
        self.autocommit = True
        self.in_transaction = False
        self.closed = False
        self._reading: Cursor | ArrowStream | None = None
        self._journal = Journal(savepoint_bytes) if savepoint_bytes else None
        self._by_hand = False
        self._failed = False
        self._broken: StoreError | None = None
        self._own_defaults: dict[str, dict[str, str]] = {}

    def sibling(self) -> Connection:
        """Open another connection to the same database, with transactions of its own."""
        return Connection(self._open_session)

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

    @_in_turn
    def fetch_arrow(self, sql: str, params: Any = None) -> pyarrow.Table:
        """Run one query and return its rows as an Arrow table."""
        self._settle(None)
        table = self._perform(sql, lambda session, begin: session.arrow(sql, params, begin=begin))
        if self._journal is not None and self._keeps_journal() and not read(sql).leaves_no_trace:
            rows = list(zip(*table.to_pydict().values(), strict=True))
            entry = Written(sql, _copied(params), None, len(rows), digest(rows, ordered=False))
            self._journal.add(entry)
        return table

    @_in_turn
    def stream_arrow(
        self, sql: str, params: Any = None, *, batch_rows: int = BATCH_ROWS
    ) -> ArrowStream:
        """
        Run one query and return its rows as Arrow batches, each read when it is asked for.

        Another statement of this connection reads what is left to memory first.
        """
        self._settle(None)
        if self._journal is not None and self._keeps_journal() and not read(sql).leaves_no_trace:
            table = self.fetch_arrow(sql, params)
            return ArrowStream(self, table.schema, table.to_batches(max_chunksize=batch_rows))
        schema = self._perform(
            sql,
            lambda session, begin: session.open_arrow(
                sql, params, batch_rows=batch_rows, begin=begin
            ),
        )
        self._reading = stream = ArrowStream(self, schema)
        return stream

    @_in_turn
    def begin(self) -> None:
        """Begin a transaction now; it has no savepoints."""
        self._settle(None)
        self._perform("SELECT", lambda session, begin: session.begin())
        self.in_transaction = self._by_hand = True

    @_in_turn
    def commit(self) -> None:
        """Commit the open transaction; nothing where there is none. Raises StoreGone."""
        broken = self._broken
        if broken is not None:
            self.rollback()
            raise broken
        if not self.in_transaction:
            self._ended()
            return
        self._settle(None)
        self.in_transaction = False
        try:
            self.session.commit()
        except SessionGone as gone:
            raise self._lost(gone) from gone
        finally:
            self._ended()

    @_in_turn
    def rollback(self) -> None:
        """Roll the open transaction back; nothing where there is none."""
        if self.in_transaction:
            self._settle(None)
        self._undo()
        self._ended()

    def _undo(self) -> None:
        """Roll DuckDB's transaction back."""
        open_, self.in_transaction, self._failed = self.in_transaction, False, False
        if open_:
            with suppress(SessionGone):  # then it is rolled back already
                self.session.rollback()

    def _ended(self) -> None:
        """Forget what belonged to the transaction."""
        self._by_hand = self._failed = False
        self._broken = None
        if self._journal is not None:
            if self._journal.defines:
                self.session.defaults.clear()
                self._own_defaults = {}
            self._journal.clear()

    @_in_turn
    def alive(self) -> bool:
        """Ask the database whether it answers; what is left of a result is set aside."""
        self._settle(None)
        return not self.closed and self.session.alive()

    @_in_turn
    def close(self) -> None:
        """Close; an open transaction is rolled back."""
        if not self.closed:
            self.closed = True
            self._reading = None
            self.session.close()

    @_in_turn
    def _run(
        self, cursor: Cursor, sql: str, params: Any, arrow: Mapping[str, Any] | None
    ) -> tuple[Description, int]:
        self._settle(cursor)
        journal = self._journal
        if journal is not None and self._keeps_journal():
            told = read(sql)
            if told.command is not None:
                self._obey(journal, told.command)
                return None, -1
            if not told.leaves_no_trace:
                return self._run_kept(journal, cursor, sql, params, arrow)
        outcome = self._perform(
            sql, lambda session, begin: session.run(sql, params, arrow, begin=begin)
        )
        self._reading = cursor
        if journal is not None and read(sql).defines:
            self.session.defaults.clear()
        return outcome

    # Savepoints.

    def _keeps_journal(self) -> bool:
        return not self.autocommit and not self._by_hand

    def _run_kept(
        self,
        journal: Journal,
        cursor: Cursor,
        sql: str,
        params: Any,
        arrow: Mapping[str, Any] | None,
    ) -> tuple[Description, int]:
        """Run a statement that writes and keep it in the journal; its rows are read at once."""
        if journal.dropped:
            outcome = self._perform(
                sql, lambda session, begin: session.run(sql, params, arrow, begin=begin)
            )
            journal.written += 1
            self._reading = cursor
            return outcome
        statement = read(sql)
        insert = statement.insert
        defaults = self._defaults(journal, insert.table) if insert is not None else {}
        plan = prepare(sql, insert, defaults)
        entry = Written(plan.sql, _copied(params), arrow, table=insert.table if insert else None)
        if plan.asks_time:
            entry.now_us = self._now_us()
        if insert is not None and plan.drawn:
            entry.ordered = not insert.conflicts
            if insert.conflicts:  # a row in conflict draws, too, and is not told
                entry.first = {column: self._next(defaults[column]) for column in plan.drawn}
        try:
            described, counted = self._perform(
                sql, lambda session, begin: session.run(entry.sql, params, arrow, begin=begin)
            )
            rows = [] if described is None else self._all_rows()
        except duckdb.Error:
            if plan.asked and insert is not None:  # perhaps somebody dropped the column
                self.session.defaults.pop(insert.table, None)
            raise
        if described is None:
            entry.rows = counted
        else:
            names = [str(column[0]).lower() for column in described]
            entry.rows = len(rows)
            entry.drawn = {
                column: values for column in plan.drawn if (values := drawn_in(rows, names, column))
            }
            entry.returned = digest(rows, ordered=entry.ordered)
            if len(described) == plan.asked:
                described, counted = None, len(rows)
            elif plan.asked:
                described = described[: -plan.asked]
                cursor._kept = iter([row[: -plan.asked] for row in rows])
            else:
                cursor._kept = iter(rows)
        journal.add(entry)
        if statement.defines:
            journal.defines, self._own_defaults = True, {}
        return described, counted

    def _all_rows(self) -> list[tuple[Any, ...]]:
        try:
            return self.session.rows(None)
        except SessionGone as gone:
            raise self._lost(gone) from gone
        except BaseException:
            self._failed = True
            raise

    def _defaults(self, journal: Journal, table: str) -> dict[str, str]:
        """Return the defaults of a table's columns; while this transaction changes tables, its."""
        kept = self._own_defaults if journal.defines else self.session.defaults
        if table not in kept:
            kept[table] = self._ask(lambda session: defaults_of(session, table))
        return kept[table]

    def _now_us(self) -> int:
        """Return the transaction's time in microseconds."""

        def ask(session: Session) -> int:
            session.run(NOW, None, None, begin=False)
            return session.rows(None)[0][0]

        return self._ask(ask)

    def _next(self, default: str) -> int:
        """Return the value that a column's `default` will draw."""
        return self._ask(lambda session: next_of(session, sequence_of(default) or ""))

    def _ask(self, question: Callable[[Session], Any]) -> Any:
        """Ask something inside the transaction, which begins if it has not yet."""

        def action(session: Session, begin: bool) -> Any:
            if begin:
                session.begin()
            return question(session)

        return self._perform("SELECT", action)

    def _obey(self, journal: Journal, command: SavepointCommand) -> None:
        """Set, release or go back to a savepoint. Raises SavepointLost, StoreGone."""
        if self._broken is not None:
            raise self._broken
        if command.act == "set":
            journal.mark(command.name)
        elif command.act == "release":
            journal.release(command.name)
        else:
            self._go_back(journal, command.name)

    def _go_back(self, journal: Journal, name: str) -> None:
        mark = journal.back_to(name)
        if not self._failed and journal.written == mark.written:
            return
        if mark.written == 0:
            self._undo()
        elif journal.dropped:
            self._give_up(
                SavepointLost(
                    f"The transaction wrote more than {journal.limit_bytes:_} bytes, so it cannot "
                    f"go back to a savepoint and was rolled back altogether. Raise "
                    f"OPTIONS['savepoint_bytes'], or write less in one transaction."
                )
            )
        else:
            self._replay(journal.entries[: mark.kept])
        if journal.defines:
            self._own_defaults = {}
        journal.cut(mark)

    def _replay(self, entries: Sequence[Written]) -> None:
        try:
            Replay(self.session, entries).run()
        except SessionGone as gone:
            self._give_up(self._lost(gone))
        except SavepointLost as error:
            self._give_up(error)
        except duckdb.Error as error:
            self._give_up(
                SavepointLost(
                    f"The transaction cannot go back to its savepoint: a statement that had run "
                    f"failed the second time. Everything was rolled back; run the transaction "
                    f"again. DuckDB says: {error}"
                ),
                error,
            )
        except BaseException:
            self._undo()
            self._broken = SavepointLost(
                "The transaction was stopped while it went back to a savepoint, and was rolled "
                "back altogether. Run it again."
            )
            raise
        self._failed = False

    def _give_up(self, error: StoreError, cause: BaseException | None = None) -> NoReturn:
        """Roll everything back; until the transaction ends nothing else can be done in it."""
        self._undo()
        self._broken = error
        raise error from cause

    # Sessions.

    def _perform(self, sql: str, action: Callable[[Session, bool], Any]) -> Any:
        """Do `action` on the session, or on a new one where that is safe. Raises StoreGone."""
        if self.closed:
            raise InterfaceError("the connection is closed")
        if self._broken is not None:
            raise self._broken
        fresh = not self.in_transaction
        begin = fresh and not self.autocommit
        if fresh and self.session.gone():
            self._reopen()
        asked_again, give_up_at = False, time.monotonic() + REOPEN_S
        while True:
            # A statement that fails still leaves the transaction it began open.
            self.in_transaction = self.in_transaction or begin
            try:
                return action(self.session, begin)
            except SessionGone as gone:
                self.in_transaction = False
                unknown = gone.sent and (asked_again or not only_reads(sql))
                if not fresh or unknown or time.monotonic() > give_up_at:
                    error = self._lost(gone)
                    if not fresh and not self.autocommit and not self._by_hand:
                        # Or what follows would be committed without what is lost.
                        self._broken = error
                    raise error from gone
                asked_again = asked_again or gone.sent
            except BaseException:
                self._failed = self.in_transaction
                raise
            self._reopen()

    def _reopen(self) -> None:
        self.session.close()
        self.session = self._open_session()

    def _lost(self, gone: SessionGone) -> StoreGone:
        return StoreGone(
            f"The process that owned {gone.path} ended, or gave the file away, in the middle of "
            f"this work. A transaction it had not confirmed was most likely rolled back. "
            f"Run the transaction again; the connection finds the new owner by itself."
        )

    def _settle(self, cursor: Cursor | None) -> None:
        """Let the cursor that still reads set its rows aside, unless it is `cursor`."""
        reading, self._reading = self._reading, None
        if reading is not None and reading is not cursor:
            reading._keep_rows()


class Cursor:
    """A DB-API cursor. `description` is None after a statement that has no rows to give."""

    arraysize = 100

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = connection.lock
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

    @_in_turn
    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return up to `size` rows, [] after the last."""
        self._check_open()
        size = size or self.arraysize
        if self._kept is not None:
            return list(islice(self._kept, size))
        return self._read(size)

    @_in_turn
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
        try:
            rows = self.connection.session.rows(size)
        except SessionGone as gone:
            self.connection._reading = None
            raise self.connection._lost(gone) from gone
        except BaseException:
            self.connection._failed = self.connection.in_transaction
            raise
        if size is None or len(rows) < size:
            self.connection._reading = None
        return rows

    def _keep_rows(self) -> None:
        """Read what is left aside; what is wrong with it is raised to who asks for it."""
        connection = self.connection
        try:
            self._kept = KeptRows(connection.session.rows)
        except SessionGone as gone:
            self._kept = _Raising(connection._lost(gone))
        except duckdb.Error as error:
            connection._failed = connection.in_transaction
            self._kept = _Raising(error)
        except OSError as error:
            self._kept = _Raising(
                StoreFull(
                    f"The rest of a result could not be set aside in {tempfile.gettempdir()} while "
                    f"another statement ran: {error}. Free some space there, or set TMPDIR."
                )
            )

    def _check_open(self) -> None:
        if self.closed:
            raise duckdb.ProgrammingError("the cursor is closed")


def _copied(params: Any) -> Any:
    """Return parameters that their caller may change."""
    if isinstance(params, Mapping):
        return dict(params)
    return None if params is None else list(params)


class ArrowStream(Iterator["pyarrow.RecordBatch"]):
    """The rows of `Connection.stream_arrow`, batch by batch; to be read once."""

    def __init__(
        self,
        connection: Connection,
        schema: pyarrow.Schema,
        kept: Sequence[pyarrow.RecordBatch] = (),
    ) -> None:
        self.schema = schema
        self.lock = connection.lock
        self._connection = connection
        self._kept = list(kept)
        self._failure: Exception | None = None

    @_in_turn
    def __next__(self) -> pyarrow.RecordBatch:
        if self._kept:
            return self._kept.pop(0)
        if self._failure is not None:
            raise self._failure
        if self._connection._reading is not self:
            raise StopIteration
        try:
            batch = self._connection.session.next_arrow()
        except SessionGone as gone:
            self._connection._reading = None
            raise self._connection._lost(gone) from gone
        except BaseException:
            self._connection._failed = self._connection.in_transaction
            raise
        if batch is None:
            self._connection._reading = None
            raise StopIteration
        return batch

    @_in_turn
    def close(self) -> None:
        """Let go of the rows that were not read."""
        self._kept = []
        if self._connection._reading is self:
            self._connection._reading = None

    def _keep_rows(self) -> None:
        """Read what is left to memory: the connection has other work."""
        try:
            while (batch := self._connection.session.next_arrow()) is not None:
                self._kept.append(batch)
        except SessionGone as gone:
            self._failure = self._connection._lost(gone)
        except duckdb.Error as error:
            self._failure = error


class _Raising(Iterator[tuple[Any, ...]]):
    """Raises `error` when the first row is asked for, not before."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __next__(self) -> tuple[Any, ...]:
        raise self._error


class SessionGone(duckdb.OperationalError):
    """
    The session's database was closed, or its process ended.

    sent: whether the statement had gone out, so that nobody knows if it ran.
    """

    def __init__(self, path: str, *, sent: bool) -> None:
        super().__init__(f"the session on {path} is gone")
        self.path = path
        self.sent = sent


def outcome_of(raw: duckdb.DuckDBPyConnection, sql: str) -> tuple[Description, int, bool]:
    """
    Read what was just run: its columns or None, its row count or -1.

    The third value says whether a column has a time zone: DuckDB would want
    pytz to read it, so its rows go by `zoned_rows`.
    """
    described: Any = raw.description
    if described is None:
        return None, -1, False
    counted = raw.rowcount
    if older.OLDER and (told := older.told_by(raw, sql)) is not None:
        return None, told, False
    if counted >= 0:
        raw.fetchall()
        return None, counted, False
    columns = [(column[0], str(column[1]), *column[2:]) for column in described]
    return columns, -1, any("WITH TIME ZONE" in column[1] for column in columns)


def zoned_rows(raw: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    """Read the open result by way of Arrow; what has a zone is told in UTC."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "makes an extra copy": it does
        table: Any = raw.to_arrow_table()
    columns = [column.to_pylist() for column in table.columns]
    return [tuple(map(_in_utc, row)) for row in zip(*columns, strict=True)]


def _in_utc(value: Any) -> Any:
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC)
    return value


_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|ANALYZE|CALL|COPY)\b", re.IGNORECASE)
_READS = re.compile(
    r"[\s(]*(SELECT|WITH|FROM|VALUES|SHOW|DESCRIBE|SUMMARIZE|EXPLAIN)\b", re.IGNORECASE
)


def only_reads(sql: str) -> bool:
    """Say whether running `sql` twice does no more than running it once."""
    if not _READS.match(sql):
        return False
    head = sql.lstrip(" (\n\t")[:6].upper()
    return head == "SELECT" or not _WRITES.search(sql)
