"""
The outbox of an SQLite source.

SQLite runs one writing transaction at a time and the id is AUTOINCREMENT, so
ids rise in commit order and the highest id relayed is the cursor. SQLite does
not number its transactions: rows written through Django carry a number all
the same, those of other clients do not. Of them it is only certain that the
newest row visible ends a transaction.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.db import connections

from .. import faults, forks
from ..changes import SourcePosition
from ..contracts import Fetched
from ..errors import ForeignPosition, SourceUnavailable
from .cursors import IdCursor
from .sources import COLUMNS, ID, TRANSACTION

FETCH = f"SELECT {COLUMNS} FROM levada_outbox WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
NEWEST = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'levada_outbox'), 0)"
PRUNE = (
    "DELETE FROM levada_outbox WHERE id <= coalesce("
    "(SELECT id FROM levada_outbox WHERE id <= ?1 ORDER BY id LIMIT 1 OFFSET ?2), ?1)"
)
REMEMBER = (
    "INSERT INTO levada_relay (epoch, cursor) VALUES (?1, ?2)"
    " ON CONFLICT (epoch) DO UPDATE SET cursor = ?2"
)
PRUNE_ROWS = 1_000  # about 1 ms: longer than that no user's write waits for the relay
BUSY_S = 5.0
PATIENCE_S, PATIENT_ROWS = 0.05, 20_000
NO_LIMIT = 2**63 - 1


class SQLiteSource:
    """The `Source` contract on SQLite, through one connection of its own."""

    vendor = "sqlite"

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._version: int | None = None

    def abandon(self) -> list[Any]:
        left = [self._connection]
        self._start()
        return left

    def fetch(self, cursor: str | None, limit: int) -> Fetched:
        at = IdCursor.parse(cursor)
        with self._connected() as connection:
            self._version = _version(connection)
            rows = _rows(connection, (at.relayed, at.end or NO_LIMIT, limit + 1))
            if not rows:
                return self._nothing(connection, at)
            if len(rows) <= limit:
                done = at.end or rows[-1][ID]
                return Fetched(rows, str(IdCursor(done)), bool(at.end), True)
            cut = last_border(rows)
            if cut:
                return Fetched(rows[:cut], str(IdCursor(rows[cut - 1][ID])), True, True)
            # Freeze the window: under a load that never ends its end must still come.
            end = at.end or connection.execute(NEWEST).fetchone()[0]
        del rows[limit:]
        return Fetched(rows, str(IdCursor(at.start, end, rows[-1][ID])), True, False)

    def _nothing(self, connection: sqlite3.Connection, at: IdCursor) -> Fetched:
        newest = connection.execute(NEWEST).fetchone()[0]
        if newest < at.relayed:
            raise ForeignPosition(
                f"the relay has come to row {at.relayed} of the outbox in {self._path()}, but the "
                f"newest is {newest}: the database was replaced or restored from a backup. "
                f"Move the log away and run: manage.py levada rebuild"
            )
        # In a window this completes it; its last rows were deleted by hand.
        return Fetched([], str(IdCursor(at.end or at.start)), bool(at.end), True)

    def changed(self) -> bool:
        with self._connected() as connection:
            return self._version is None or _version(connection) != self._version

    def prune(self, cursor: str, ids: Sequence[int] | None = None, *, epoch: str) -> int:
        """Delete PRUNE_ROWS rows a transaction; ids are not needed, every id below is relayed."""
        up_to = IdCursor.parse(cursor).start
        total, deleted = 0, PRUNE_ROWS
        while deleted == PRUNE_ROWS:
            with self._connected() as connection:
                deleted = self._prune_some(connection, up_to, epoch, cursor)
            total += deleted
            faults.point("relay.in_prune")
        return total

    def _prune_some(
        self, connection: sqlite3.Connection, up_to: int, epoch: str, cursor: str
    ) -> int:
        first = connection.execute("SELECT min(id) FROM levada_outbox").fetchone()[0]
        if first is None or first > up_to:
            return 0
        # A busy database goes first, unless it lets the outbox grow without bounds.
        wait_s = PATIENCE_S if up_to - first < PATIENT_ROWS else BUSY_S
        connection.execute(f"PRAGMA busy_timeout={int(1000 * wait_s)}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(REMEMBER, (epoch, cursor))
            deleted = connection.execute(PRUNE, (up_to, PRUNE_ROWS - 1)).rowcount
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        finally:
            connection.execute(f"PRAGMA busy_timeout={int(1000 * BUSY_S)}")
        return deleted

    def pruned(self, epoch: str) -> str | None:
        with self._connected() as connection:
            row = connection.execute(
                "SELECT cursor FROM levada_relay WHERE epoch = ?", (epoch,)
            ).fetchone()
        return row[0] if row else None

    def reaches(self, cursor: str | None, other: str) -> bool:
        return IdCursor.parse(cursor).relayed >= IdCursor.parse(other).relayed

    def size(self) -> int:
        with self._connected() as connection:
            count: int = connection.execute("SELECT count(*) FROM levada_outbox").fetchone()[0]
        return count

    def position(self) -> SourcePosition:
        with self._connected() as connection:
            return self._position(connection)

    def _position(self, connection: sqlite3.Connection) -> SourcePosition:
        return SourcePosition(self.alias, str(connection.execute(NEWEST).fetchone()[0]))

    def covers(self, cursor: str | None, position: SourcePosition) -> bool:
        done, asked = IdCursor.parse(cursor).start, int(position.cursor)
        if done >= asked:
            return True
        with self._connected() as connection:
            left = connection.execute(
                "SELECT 1 FROM levada_outbox WHERE id > ? AND id <= ? LIMIT 1", (done, asked)
            ).fetchone()
        return left is None

    def visible(self, record: Any, position: SourcePosition) -> bool:
        return int(record.source_id) <= int(position.cursor)

    @contextmanager
    def snapshot(self) -> Iterator[SQLiteSnapshot]:
        with self._named():
            connection = self._open()
        try:
            with self._named():
                connection.execute("BEGIN")
                # The first read fixes what the transaction sees.
                position = self._position(connection)
            yield SQLiteSnapshot(connection, position)
        finally:
            connection.close()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._named():
            if self._connection is not None and self._inode() != self._identity:
                self.close()  # the file was replaced under us: read the one that is there now
            if self._connection is None:
                self._connection = self._open()
                self._identity = self._inode()
                self._version = None
            yield self._connection

    def _path(self) -> str:
        return str(connections[self.alias].settings_dict["NAME"])

    def _open(self) -> sqlite3.Connection:
        name = self._path()
        # mode=rw: a wrong path must not become an empty database.
        uri = name if name.startswith("file:") else f"file:{quote(str(Path(name).absolute()))}"
        connection = sqlite3.connect(
            uri if "mode=" in uri else f"{uri}{'&' if '?' in uri else '?'}mode=rw",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            # A prune that a power loss undoes is done again; it need not wait for the disk.
            connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    def _inode(self) -> tuple[int, int] | None:
        name = self._path()
        if name.startswith("file:"):
            return None
        stat = os.stat(name)
        return stat.st_dev, stat.st_ino

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, FileNotFoundError) as error:
            raise SourceUnavailable(_message(self.alias, self._path(), error)) from error


class SQLiteSnapshot:
    """The `SourceSnapshot` contract: a read transaction, which in WAL mode blocks nobody."""

    vendor = "sqlite"

    def __init__(self, connection: sqlite3.Connection, position: SourcePosition) -> None:
        self.connection = connection
        self.position = position

    def chunks(
        self, sql: str, params: Sequence[Any] = (), *, chunk_rows: int = 10_000
    ) -> Iterator[list[tuple[Any, ...]]]:
        found = self.connection.execute(sql, params)
        while rows := found.fetchmany(chunk_rows):
            yield rows


def last_border(rows: Sequence[tuple[Any, ...]]) -> int:
    """Return the greatest n < len(rows) so that a transaction surely ends after n rows, or 0."""
    for n in range(len(rows) - 1, 0, -1):
        before, after = rows[n - 1][TRANSACTION], rows[n][TRANSACTION]
        if before is not None and after is not None and before != after:
            return n
    return 0


def _version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection commits: 2 µs."""
    number: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return number


def _rows(connection: sqlite3.Connection, params: tuple[int, int, int]) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(FETCH, params).fetchall()
    except sqlite3.OperationalError as error:
        if "decode to UTF-8" not in str(error):
            raise
    # A client wrote bytes that are no UTF-8 into a text column. One such row
    # must not stop every other: it travels with the bytes replaced.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        return connection.execute(FETCH, params).fetchall()
    finally:
        connection.text_factory = str


def _message(alias: str, path: str, error: Exception) -> str:
    if "no such table" in str(error):
        return (
            f"the source database {alias!r} ({path}) has no outbox yet. "
            f"Run: manage.py migrate --database {alias}"
        )
    return (
        f"the source database {alias!r} ({path}) does not answer ({error}). "
        f"Check DATABASES[{alias!r}] and the file's permissions."
    )
