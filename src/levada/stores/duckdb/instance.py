"""
One opened DuckDB database of this process, and everybody who has a session on it.

An instance can be *drained*: statements that begin wait, open transactions
may end, then every session is gone and its owner opens another.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import duckdb

from ...errors import ConfigurationError, StoreBusy
from . import digests, extensions, older
from .access import CLOSED, NOTHING, Access
from .connection import Description, SessionGone, only_reads, outcome_of, zoned_rows
from .ducklake.lake import EXTENSIONS as LAKE_EXTENSIONS
from .ducklake.lake import Lake
from .failures import named
from .kept import KeptRows
from .parameters import literal

if TYPE_CHECKING:
    import pyarrow

SNAPSHOT = "SELECT txid_current()"
"""Makes a transaction's snapshot: BEGIN leaves it to the first statement that touches a table."""

_FORCED_S = 10.0
"""How long interrupted statements may take to notice."""


class Instance:
    """A DuckDB database opened by this process. `path` is absolute, or begins with `:memory:`."""

    def __init__(
        self,
        path: str,
        config: Mapping[str, Any],
        settings: Mapping[str, Any],
        access: Access = NOTHING,
        lake: Lake | None = None,
    ) -> None:
        self.path = path
        self.pid = os.getpid()
        self._lake = lake
        self.closed = False
        self.on_broken: Callable[[str], None] | None = None
        self.defaults: dict[str, dict[str, str]] = {}
        self._draining = False
        self._restarting = False
        self._changed = threading.Condition()
        self._sessions: set[LocalSession] = set()
        name = ":memory:" if path.startswith(":memory:") else path
        with named(path):
            self._root = _opened(name, config)
            extensions.load(self._root, access.extensions)
            if lake is not None:
                extensions.load(self._root, LAKE_EXTENSIONS)
                lake.attach(self._root)
                access = access.opened_for(lake.folder)
            locked = {"lock_configuration": config.get("lock_configuration", True)}
            for setting, value in {**settings, **access.settings(), **locked}.items():
                self._root.execute(f"SET GLOBAL {setting} = {literal(value)}")
            digests.register(self._root)

    def session(self) -> LocalSession:
        """Open a session. Raises SessionGone when the instance has been closed."""
        with self._changed:
            if self.closed or self._draining or self.pid != os.getpid():
                raise SessionGone(self.path, sent=False)
            session = LocalSession(self, self._cursor())
            self._sessions.add(session)
            return session

    @contextmanager
    def aside(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Offer a connection beside every session's transaction, for a moment."""
        raw = self._cursor()
        try:
            yield raw
        finally:
            raw.close()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        raw = self._root.cursor()
        if self._lake is not None:
            self._lake.enter(raw)
        return raw

    def enter(self, session: LocalSession, *, writes: bool) -> None:
        """Let `session` run a statement; waits while others drain. Raises SessionGone."""
        if self.pid != os.getpid():
            raise SessionGone(self.path, sent=False)
        with self._changed:
            while not self.closed and (
                (self._draining and not session.pinned) or (self._restarting and writes)
            ):
                self._changed.wait()
            if self.closed:
                raise SessionGone(self.path, sent=False)
            session.running, session.writing = True, writes

    @contextmanager
    def alone(self, session: LocalSession) -> Iterator[None]:
        """Let nobody but `session` write or commit meanwhile; waits for statements that do."""
        with self._changed:
            while self._restarting and not self.closed:
                self._changed.wait()
            self._restarting = True
        try:
            with self._changed:
                while any(each.writing for each in self._sessions if each is not session):
                    self._changed.wait()
            yield
        finally:
            with self._changed:
                self._restarting = False
                self._changed.notify_all()

    def leave(self, session: LocalSession) -> None:
        """Note that the statement of `session` is over."""
        session.running = session.writing = False
        if self._draining or self._restarting:
            with self._changed:
                self._changed.notify_all()

    def broke(self) -> None:
        """Give up an instance DuckDB declared invalid; whoever comes next opens a new one."""
        notify, self.on_broken = self.on_broken, None
        if notify is not None:
            threading.Thread(target=notify, args=(self.path,), daemon=True).start()

    def forget(self, session: LocalSession) -> None:
        """Note that `session` is closed."""
        with self._changed:
            self._sessions.discard(session)
            self._changed.notify_all()

    def drain(self, grace_s: float, *, force: bool) -> None:
        """
        Wait up to `grace_s` until no session has a transaction, then let nobody in.

        Afterwards the instance is closed for all; `shut` closes the database.
        Raises StoreBusy, changing nothing, when a transaction outlasts the
        grace, unless `force`: then statements are interrupted. Raises
        SessionGone when somebody else is draining already.
        """
        deadline = time.monotonic() + grace_s
        with self._changed:
            if self._draining or self.closed:
                raise SessionGone(self.path, sent=False)
            self._draining = True
            while self._pinned():
                left = deadline - time.monotonic()
                if left <= 0 and not force:
                    self._draining = False
                    self._changed.notify_all()
                    raise StoreBusy(
                        f"{self.path} has a transaction that has not ended within {grace_s:g} s, "
                        f"so process {self.pid} keeps the file. End it, then try again."
                    )
                if left <= 0:
                    break
                self._changed.wait(left)
            self.closed = True
            self._changed.notify_all()
        self._interrupt_running()

    def _interrupt_running(self) -> None:
        deadline = time.monotonic() + _FORCED_S
        with self._changed:
            while running := [each for each in self._sessions if each.running]:
                for session in running:
                    session.interrupt()
                if time.monotonic() > deadline:
                    return
                self._changed.wait(0.05)

    def _pinned(self) -> bool:
        """Say whether a session still needs the database; rows half read are read to memory."""
        pinned = False
        for session in self._sessions:
            if session.reading and not session.running and not session.in_transaction:
                session.keep_rows()
            pinned = pinned or session.pinned
        return pinned

    def shut(self) -> None:
        """Close every session and the database itself, writing its WAL into the file."""
        self.closed = True
        with self._changed:
            sessions, self._sessions = self._sessions, set()
        for session in sessions:
            session.shut()
        with suppress(duckdb.Error):
            self._root.close()

    def abandon(self) -> None:
        """
        Leave the database to the parent process: this is a fork's child.

        The objects must never be destroyed here, or DuckDB would write its
        memory of the parent's database into the file.
        """
        self.closed = True
        self._changed = threading.Condition()
        for leaked in (self._root, *(session.raw for session in self._sessions)):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(leaked))
        self._sessions = set()


class LocalSession:
    """A DuckDB connection of this process. Implements `connection.Session`."""

    def __init__(self, instance: Instance, raw: duckdb.DuckDBPyConnection) -> None:
        self.instance = instance
        self.raw = raw
        self.running = False
        self.writing = False
        self.in_transaction = False
        self.reading = False
        self._rows: Any = raw
        self._batches: _Batches | None = None

    @property
    def pinned(self) -> bool:
        """Whether the instance must not be closed under this session."""
        return self.running or self.in_transaction or self.reading

    @property
    def defaults(self) -> dict[str, dict[str, str]]:
        """See `Session.defaults`: shared by all sessions of the instance."""
        return self.instance.defaults

    @contextmanager
    def _statement(self, *, writes: bool = False) -> Iterator[None]:
        self.instance.enter(self, writes=writes)
        try:
            with named(self.instance.path):
                yield
        except duckdb.FatalException:
            self.instance.broke()
            raise
        finally:
            self.instance.leave(self)

    def run(
        self, sql: str, params: Any, arrow: Mapping[str, pyarrow.Table] | None, *, begin: bool
    ) -> tuple[Description, int]:
        """See `Session.run`."""
        with self._statement(writes=not only_reads(sql)):
            self._let_go()
            if begin:
                self._begin()
            if arrow:
                return self._run_with(arrow, sql, params)
            self.raw.execute(sql, params)
            return self._outcome(sql)

    def rows(self, limit: int | None) -> list[tuple[Any, ...]]:
        """See `Session.rows`; rows read to memory outlive the instance."""
        if isinstance(self._rows, (_Rows, KeptRows)):
            return self._rows.fetchmany(limit)
        try:
            with self._statement():
                rows = self._rows.fetchall() if limit is None else self._rows.fetchmany(limit)
                if limit is None or len(rows) < limit:
                    self.reading = False
                return rows
        except SessionGone:
            if isinstance(
                self._rows, (_Rows, KeptRows)
            ):  # somebody drained the instance a moment ago
                return self._rows.fetchmany(limit)
            raise

    def arrow(self, sql: str, params: Any, *, begin: bool) -> pyarrow.Table:
        """See `Session.arrow`."""
        with self._statement(writes=not only_reads(sql)):
            self._let_go()
            if begin:
                self._begin()
            return self.raw.sql(sql, params=params).to_arrow_table()

    @contextmanager
    def arrow_reader(
        self, sql: str, params: Any, *, begin: bool, batch_rows: int
    ) -> Iterator[pyarrow.RecordBatchReader]:
        """Run one query and offer its rows as they come."""
        with self._statement(writes=not only_reads(sql)):
            self._let_go()
            if begin:
                self._begin()
            reader = self.raw.sql(sql, params=params).to_arrow_reader(batch_rows)
            try:
                yield reader
            finally:
                reader.close()

    def open_arrow(self, sql: str, params: Any, *, batch_rows: int, begin: bool) -> pyarrow.Schema:
        """See `Session.open_arrow`."""
        with self._statement():
            self._let_go()
            if begin:
                self._begin()
            self._batches = _Batches(self.raw.sql(sql, params=params).to_arrow_reader(batch_rows))
            self.reading = True
            return self._batches.schema

    def next_arrow(self) -> pyarrow.RecordBatch | None:
        """See `Session.next_arrow`; batches read to memory outlive the instance."""
        batches = self._batches
        if batches is None:
            return None
        if not batches.in_memory:
            try:
                with self._statement():
                    return self._next_of(batches)
            except SessionGone:
                if not batches.in_memory:  # else somebody drained the instance a moment ago
                    raise
        return self._next_of(batches)

    def _next_of(self, batches: _Batches) -> pyarrow.RecordBatch | None:
        batch = batches.next()
        if batch is None:
            self._batches, self.reading = None, False
        return batch

    def begin(self) -> None:
        """Begin a transaction."""
        with self._statement():
            self._begin()

    def commit(self) -> None:
        """Commit the transaction."""
        with self._statement(writes=True):
            self._let_go()
            self.in_transaction = False
            self.raw.commit()

    def rollback(self) -> None:
        """Roll the transaction back."""
        with self._statement():
            self.in_transaction = self.reading = False
            self.raw.rollback()

    def restart(self) -> None:
        """See `Session.restart`."""
        with self.instance.alone(self), self._statement():
            self.in_transaction = self.reading = False
            self.raw.rollback()
            self._begin()
            self.raw.execute(SNAPSHOT).fetchall()

    def alive(self) -> bool:
        """Say whether DuckDB still answers on this session."""
        try:
            with self._statement():
                self.raw.execute("SELECT 1").fetchall()
        except duckdb.Error:
            return False
        return True

    def gone(self) -> bool:
        """Say whether the session is known to lead nowhere."""
        return self.instance.closed or self.instance.pid != os.getpid()

    def close(self) -> None:
        """Close the session; the database stays open for others."""
        if self.gone():
            return  # a fork's child must not touch it, and a shut instance has closed it
        self.shut()
        self.instance.forget(self)

    def shut(self) -> None:
        """Close the connection, rolling back what is open."""
        self.in_transaction = self.reading = False
        with suppress(duckdb.Error):
            self.raw.close()

    def interrupt(self) -> None:
        """Stop the running statement; called from another thread."""
        with suppress(duckdb.Error):
            self.raw.interrupt()

    def keep_rows(self) -> None:
        """Set what is left of the open result aside."""
        if self._batches is not None:
            self._batches.keep()
        else:
            with suppress(duckdb.Error, OSError):
                self._rows = KeptRows(self._rows.fetchmany)
        self.reading = False

    def _let_go(self) -> None:
        """Run a result nobody reads on to its end, as DuckDB asks before other work."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
        elif self.reading and self._rows is self.raw:
            older.complete(self.raw)
        self.reading = False
        self._rows = self.raw

    def _begin(self) -> None:
        self.raw.begin()
        self.in_transaction = True

    def _run_with(
        self, arrow: Mapping[str, pyarrow.Table], sql: str, params: Any
    ) -> tuple[Description, int]:
        """Run with `arrow` visible; the rows are read before the tables go."""
        for name, table in arrow.items():
            self.raw.register(name, table)
        try:
            self.raw.execute(sql, params)
            described, counted = self._outcome(sql)
            if self.reading:
                self.keep_rows()
        finally:
            for name in arrow:
                self._unregister(name)
        return described, counted

    def _unregister(self, name: str) -> None:
        # After a failure the transaction takes the view with it when it is rolled back.
        with suppress(duckdb.TransactionException):
            self.raw.unregister(name)

    def _outcome(self, sql: str) -> tuple[Description, int]:
        described, counted, zoned = outcome_of(self.raw, sql)
        self.reading = described is not None
        if zoned:
            self._rows = _Rows(zoned_rows(self.raw))
            self.reading = False
        return described, counted


class _Batches:
    """The open result of `open_arrow`, read from DuckDB or from memory."""

    def __init__(self, reader: pyarrow.RecordBatchReader) -> None:
        self.schema = reader.schema
        self.in_memory = False
        self._reader = reader
        self._kept: list[pyarrow.RecordBatch] = []
        self._failure: duckdb.Error | None = None

    def next(self) -> pyarrow.RecordBatch | None:
        """Return the next batch that has rows, None after the last."""
        if self.in_memory:
            if not self._kept and self._failure is not None:
                raise self._failure
            return self._kept.pop(0) if self._kept else None
        while True:
            batch = self._read()
            if batch is None or batch.num_rows:
                return batch

    def keep(self) -> None:
        """Read what is left to memory, and a failure on the way."""
        try:
            while (batch := self._read()) is not None:
                self._kept.append(batch)
        except duckdb.Error as error:
            self._failure = error
        self.in_memory = True
        self.close()

    def close(self) -> None:
        """Let go of DuckDB's result."""
        self._reader.close()

    def _read(self) -> pyarrow.RecordBatch | None:
        try:
            return self._reader.read_next_batch()
        except StopIteration:
            self.close()
            return None
        except (OSError, ValueError) as error:  # Arrow's exceptions, in which DuckDB's text is
            self.close()
            raise duckdb.DataError(str(error)) from error


class _Rows:
    """Rows in memory."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows, self._at = rows, 0

    def fetchmany(self, limit: int | None) -> list[tuple[Any, ...]]:
        """Return the next rows, all for None."""
        end = len(self._rows) if limit is None else self._at + limit
        rows, self._at = self._rows[self._at : end], end
        return rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the remaining rows."""
        return self.fetchmany(None)


def _opened(name: str, config: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
    """Open the database with `config` but its lock. Raises ConfigurationError."""
    wanted = {each: config[each] for each in config if each != "lock_configuration"}
    try:
        return duckdb.connect(name, config={**CLOSED, **wanted})
    except duckdb.ProgrammingError as error:
        raise ConfigurationError(
            f"DuckDB {duckdb.__version__} does not take the OPTIONS['config'] of {name}: {error}. "
            f"Its settings are listed by: SELECT name, description FROM duckdb_settings()"
        ) from error
