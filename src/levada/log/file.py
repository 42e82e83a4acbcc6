"""
The embedded log's file: opening, checking, connections, and SQLite's errors under our names.

One SQLite file in WAL mode, so that readers of any process never wait for
the producer. https://www.sqlite.org/wal.html
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import forks
from ..errors import LogCorrupt, LogError, LogFull, LogUnavailable

APPLICATION_ID = 0x4C455641  # "LEVA": tells our file from any other SQLite file
FORMAT = 1
WAL_PAGES = 4_000  # 16 MB between checkpoints: a batch of 10,000 rows is some 6 MB
BUSY_S = 10.0
HEADER_BYTES = 100

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE topic (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    first INTEGER NOT NULL DEFAULT 0,
    boundary INTEGER NOT NULL DEFAULT 0,
    next INTEGER NOT NULL DEFAULT 0
);
-- id = topic << 44 | offset: one table, appended to at each topic's end, read by ranges.
CREATE TABLE record (
    id INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    op TEXT NOT NULL,
    key TEXT,
    before TEXT,
    after TEXT,
    fingerprint TEXT NOT NULL,
    "transaction" INTEGER,
    source_id INTEGER NOT NULL,
    changed_at TEXT NOT NULL,
    context TEXT
);
CREATE TABLE append (
    topic INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    appended_at REAL NOT NULL,
    whole INTEGER NOT NULL,
    PRIMARY KEY (topic, "end")
) WITHOUT ROWID;
CREATE TABLE producer (source TEXT PRIMARY KEY, cursor TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE position (
    "group" TEXT NOT NULL,
    topic TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    PRIMARY KEY ("group", topic)
) WITHOUT ROWID;
"""

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SHORT_READ = 522  # SQLITE_IOERR_SHORT_READ: the file ends before a page it must have


@dataclass(frozen=True, slots=True)
class _Opened:
    """What belongs to one opening of the file, by one process."""

    epoch: str
    identity: tuple[int, int]
    readers: deque[sqlite3.Connection]
    pid: int


class LogFile:
    """
    The open file: a pool of reading connections and one writer at a time.

    Thread-safe. A forked child starts with connections of its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._opening = threading.Lock()
        self._writing = threading.Lock()
        self._writers: dict[bool, sqlite3.Connection] = {}
        self._opened: _Opened | None = None

    def abandon(self) -> list[Any]:
        left = [*(self._opened.readers if self._opened else ()), *self._writers.values()]
        self._start()
        return left

    @property
    def epoch(self) -> str:
        """The log's identity; opens the file, or creates it. Raises LogError."""
        with self._named():
            return self._use().epoch

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside one read transaction: a consistent view. Raises LogError."""
        with self.lent() as connection, self._named():
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")

    @contextmanager
    def lent(self) -> Iterator[sqlite3.Connection]:
        """Lend a reading connection outside any transaction. Raises LogError."""
        with self._named():
            opened = self._check()
            try:
                connection = opened.readers.pop()
            except IndexError:
                connection = self._connect()
        try:
            yield connection
        finally:
            self._give_back(connection, opened)

    def _give_back(self, connection: sqlite3.Connection, opened: _Opened) -> None:
        if opened.pid != os.getpid():
            forks.keep(connection)
        elif connection.in_transaction or opened is not self._opened:
            connection.close()
        else:
            opened.readers.append(connection)

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """
        Lend the writer inside one write transaction, committed when the block ends without error.

        durable: wait until the disk has it; otherwise a power loss may undo
        it (nothing less than that can). Raises LogError, having written nothing.
        """
        with self._writing, self._named():
            self._check()
            connection = self._writer(durable)
            with _transaction(connection, "BEGIN IMMEDIATE"):
                yield connection

    def version(self, connection: sqlite3.Connection) -> int:
        """Return a number that changes when another connection commits; `connection` is lent."""
        with self._named():
            self._check()
            number: int = connection.execute("PRAGMA data_version").fetchone()[0]
            return number

    def scrub(self) -> None:
        """Make sure that overwritten content is gone from the write-ahead log as well."""
        with self._writing, self._named():
            self._writer(True).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def size_bytes(self) -> int:
        """Return the size of the file and its write-ahead log."""
        sizes = 0
        for path in (self.path, Path(f"{self.path}-wal")):
            with suppress(FileNotFoundError):
                sizes += path.stat().st_size
        return sizes

    def close(self) -> None:
        """Close the connections; the next use opens the file again."""
        with self._writing, self._opening:
            opened, self._opened = self._opened, None
            while opened and opened.readers:
                opened.readers.pop().close()
            for connection in self._writers.values():
                connection.close()
            self._writers.clear()

    def _writer(self, durable: bool) -> sqlite3.Connection:
        if durable not in self._writers:
            self._writers[durable] = self._connect(
                f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}",
                f"PRAGMA wal_autocheckpoint={WAL_PAGES}",
                "PRAGMA secure_delete=FAST",
            )
        return self._writers[durable]

    def _connect(self, *pragmas: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in ("PRAGMA cache_size=-8000", *pragmas):
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _use(self) -> _Opened:
        """Return the opened file; open it at first use."""
        opened = self._opened
        if opened is None:
            with self._opening:
                opened = self._opened = self._opened or self._open()
        return opened

    def _open(self) -> _Opened:
        if not self.path.parent.is_dir():
            raise LogUnavailable(
                f"the log {self.path} cannot be opened: its folder does not exist. "
                f"Create the folder or change LEVADA['LOG']['NAME']."
            )
        # 0600: the log holds every row image; only the user that runs Levada may read it.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        _check_head(self.path)
        connection = self._connect()
        try:
            _initialise(connection, self.path)
            row = connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
            _check_complete(connection, self.path)
        finally:
            connection.close()
        return _Opened(row[0], self._inode(), deque(), os.getpid())

    def _inode(self) -> tuple[int, int]:
        stat = os.stat(self.path)
        return stat.st_dev, stat.st_ino

    def _check(self) -> _Opened:
        """
        Return the opened file; make sure that it is still the one at its path.

        A file deleted under an open connection would go on taking records
        that nobody will ever find, while the outbox lets them go.
        """
        opened = self._use()
        try:
            same = self._inode() == opened.identity
        except FileNotFoundError:
            same = False
        if not same:
            raise LogCorrupt(
                f"the log {self.path} was deleted or replaced while it was in use. Put it back "
                f"and restart, or restart for a new log and run: manage.py levada rebuild"
            )
        return opened

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise named(error, self.path) from error
        except OSError as error:
            if isinstance(error, LogError):
                raise
            raise LogUnavailable(
                f"the log {self.path} cannot be opened: {error.strerror}. "
                f"Check the path in LEVADA['LOG']['NAME'] and its permissions."
            ) from error


def named(error: sqlite3.Error, path: Path) -> LogError:
    """Return our error for SQLite's, with the file and the next step."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in _CORRUPT or code == _SHORT_READ:
        return LogCorrupt(
            f"the log {path} is damaged, cut short or not a log ({error}). The source and its "
            f"outbox are untouched. Move the file away and run: manage.py levada rebuild"
        )
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return LogFull(
            f"no space is left for the log {path}. Nothing is lost: the outbox keeps what the log "
            f"does not hold. Free some space; the relay goes on by itself."
        )
    return LogUnavailable(
        f"the log {path} does not answer ({error}). Check its permissions, its disk, and which "
        f"process holds it: fuser {path}"
    )


def _check_head(path: Path) -> None:
    """
    Raise LogCorrupt for a file cut to almost nothing, which SQLite takes for a new one.

    https://www.sqlite.org/fileformat2.html#the_database_header
    """
    size, wal = path.stat().st_size, Path(f"{path}-wal")
    if 0 < size < HEADER_BYTES or (size == 0 and wal.exists() and wal.stat().st_size):
        raise LogCorrupt(
            f"the log {path} is cut short: {size} bytes are left. The source and its outbox are "
            f"untouched. Move the file and its -wal away and run: manage.py levada rebuild"
        )


def _initialise(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file, exactly once; refuse a file that is no log of ours."""
    # One transaction for each look: between two statements another process may create the log.
    with _transaction(connection, "BEGIN"):
        ours = _is_ours(connection, path)
    if not ours:
        with _transaction(connection, "BEGIN IMMEDIATE"):
            if not _is_ours(connection, path):
                _create(connection)
    _use_wal(connection)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Tell a log from an empty file. Raises LogCorrupt for any other file."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID:
        if version > FORMAT:
            raise LogCorrupt(
                f"the log {path} has format {version}, written by a newer Levada; this one reads "
                f"format {FORMAT}. Run the newer version."
            )
        return True
    if application or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise LogCorrupt(
            f"{path} is an SQLite database, but not a log of Levada. "
            f"Write another path into LEVADA['LOG']['NAME']."
        )
    return False


def _create(connection: sqlite3.Connection) -> None:
    for statement in SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('epoch', ?)", (uuid.uuid4().hex,))
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={FORMAT}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite does not wait for a busy file here, so we do."""
    give_up_at = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
        else:
            return


def _check_complete(connection: sqlite3.Connection, path: Path) -> None:
    """Raise LogCorrupt if the file is shorter than it says or a topic's last record is missing."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    expected = pages * connection.execute("PRAGMA page_size").fetchone()[0]
    missing = connection.execute(
        "SELECT name FROM topic WHERE next > first AND NOT EXISTS"
        " (SELECT 1 FROM record WHERE record.id = (topic.id << 44) + topic.next - 1)"
    ).fetchone()
    wal = Path(f"{path}-wal")
    in_wal = wal.stat().st_size if wal.exists() else 0
    if missing or path.stat().st_size + in_wal < expected:
        raise LogCorrupt(
            f"the log {path} is cut short: it should hold {expected} bytes. The source and its "
            f"outbox are untouched. Move the file away and run: manage.py levada rebuild"
        )
