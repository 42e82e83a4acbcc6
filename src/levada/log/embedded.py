"""
The embedded log: one SQLite file, one producer, readers in any thread and process.

All row changes stand in the one topic `changes`, in commit order; each
user topic is its own. `append` commits with synchronous=FULL: a store keeps
its position elsewhere, and a log that a power loss rolled back behind that
position would hand out the same offsets twice.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import faults, forks
from ..changes import Batch, Position
from ..errors import LogFenced
from .file import LogFile
from .memory import fenced
from .reading import check_kept, check_log, read_batch

SHIFT = 44  # offsets below 1.7e13 records a topic, 524,287 topics
PRUNE_ROWS = 5_000  # deleted in one transaction: the producer never waits long for retention

INSERT = (
    "INSERT INTO record (id, label, op, key, before, after, fingerprint, "
    '"transaction", source_id, changed_at, context) VALUES (?,?,?,?,?,?,?,?,?,?,?)'
)
READ = (
    "SELECT id - ?1, ?2, label, op, key, before, after, fingerprint, "
    '"transaction", source_id, changed_at, context '
    "FROM record WHERE id >= ?1 + ?3 AND id < ?1 + ?4 ORDER BY id"
)


class _Signal:
    """Wakes the threads of one process that wait for one file."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.count = 0
        forks.watch(self)

    def abandon(self) -> list[Any]:
        self.condition = threading.Condition()
        return []

    def send(self) -> None:
        with self.condition:
            self.count += 1
            self.condition.notify_all()

    def wait(self, seen: int, timeout_s: float) -> None:
        with self.condition:
            self.condition.wait_for(lambda: self.count != seen, timeout_s)


_signals: weakref.WeakValueDictionary[Path, _Signal] = weakref.WeakValueDictionary()


class _View:
    """One topic inside one read transaction, see `reading.TopicView`."""

    def __init__(self, connection: sqlite3.Connection, topic: str) -> None:
        self.connection = connection
        self.topic = topic
        row: tuple[int, int, int] | None = connection.execute(
            "SELECT id, first, boundary FROM topic WHERE name = ?", (topic,)
        ).fetchone()
        self.id: int
        self.first: int
        self.boundary: int
        self.id, self.first, self.boundary = row or (0, 0, 0)

    def rows(self, start: int, stop: int) -> list[tuple[Any, ...]]:
        if start >= stop:
            return []
        return self.connection.execute(READ, (self.id << SHIFT, self.topic, start, stop)).fetchall()

    def last_end(self, start: int, stop: int) -> int:
        return self._end('max("end")', start, stop) or start

    def next_end(self, after: int) -> int:
        return self._end('min("end")', after, self.boundary) or self.boundary

    def _end(self, which: str, above: int, up_to: int) -> int | None:
        found: int | None = self.connection.execute(
            f'SELECT {which} FROM append WHERE topic = ? AND "end" > ? AND "end" <= ? AND whole',
            (self.id, above, up_to),
        ).fetchone()[0]
        return found


class EmbeddedLog:
    """The `Log` contract in the SQLite file at `path`; opened, or created, at first use."""

    def __init__(
        self,
        path: Path | str,
        *,
        poll_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path).absolute()
        self.name = f"the log {self.path}"
        self._poll_s = poll_s
        self._clock = clock
        self._file = LogFile(self.path)
        self._signal = _signals.setdefault(self.path, _Signal())

    @property
    def epoch(self) -> str:
        return self._file.epoch

    def append(
        self,
        rows: Sequence[tuple[Any, ...]],
        *,
        source: str,
        expected: str | None,
        cursor: str,
        whole: bool = True,
    ) -> None:
        by_topic = _by_topic(rows)
        with self._file.writing() as connection:
            found = _cursor(connection, source)
            if found != expected:
                raise LogFenced(fenced(self.name, source, expected, found))
            now = self._clock()
            for topic, part in by_topic.items():
                _insert(connection, topic, part, now)
            if whole:
                _complete(connection)
            connection.execute(
                "INSERT INTO producer VALUES (?1, ?2)"
                " ON CONFLICT (source) DO UPDATE SET cursor = ?2",
                (source, cursor),
            )
            faults.point("relay.in_append")
        self._signal.send()

    def cursor(self, source: str) -> str | None:
        with self._file.reading() as connection:
            return _cursor(connection, source)

    def read(self, position: Position, limit: int, *, split: bool = False) -> Batch:
        check_log(position, self.epoch, self.name)
        with self._file.reading() as connection:
            view = _View(connection, position.topic)
            check_kept(position, view, self.name)
            return read_batch(view, position, limit, split=split)

    def beginning(self, topic: str) -> Position:
        with self._file.reading() as connection:
            return Position(self.epoch, topic, _View(connection, topic).first)

    def end(self, topic: str) -> Position:
        with self._file.reading() as connection:
            return Position(self.epoch, topic, _View(connection, topic).boundary)

    def age_s(self, position: Position) -> float:
        check_log(position, self.epoch, self.name)
        with self._file.reading() as connection:
            view = _View(connection, position.topic)
            if position.offset >= view.boundary:
                return 0.0
            (appended_at,) = connection.execute(
                'SELECT appended_at FROM append WHERE topic = ? AND "end" > ?'
                ' ORDER BY "end" LIMIT 1',
                (view.id, position.offset),
            ).fetchone()
        return max(0.0, self._clock() - appended_at)

    def size_bytes(self) -> int:
        return self._file.size_bytes()

    def topics(self) -> tuple[str, ...]:
        with self._file.reading() as connection:
            found = connection.execute("SELECT name FROM topic WHERE boundary > 0 ORDER BY name")
            return tuple(name for (name,) in found)

    def wait(self, position: Position, timeout_s: float) -> bool:
        """
        Woken at once by an append in this process, within POLL_S by one in another.

        Polling asks `PRAGMA data_version`, 2 µs, and reads only when a commit happened.
        https://www.sqlite.org/pragma.html#pragma_data_version
        """
        check_log(position, self.epoch, self.name)
        give_up_at = time.monotonic() + timeout_s
        version = None
        with self._file.lent() as connection:
            while True:
                seen = self._signal.count
                found = self._file.version(connection)
                if found != version:
                    version = found
                    if self.end(position.topic).offset > position.offset:
                        return True
                left_s = give_up_at - time.monotonic()
                if left_s <= 0:
                    return False
                self._signal.wait(seen, min(left_s, self._poll()))

    def _poll(self) -> float:
        if self._poll_s is not None:
            return self._poll_s
        from ..conf import settings

        return float(settings.POLL_S)

    def commit(self, group: str, position: Position) -> None:
        check_log(position, self.epoch, self.name)
        with self._file.writing(durable=False) as connection:
            connection.execute(
                "INSERT INTO position VALUES (?1, ?2, ?3)"
                ' ON CONFLICT ("group", topic) DO UPDATE SET "offset" = ?3',
                (group, position.topic, position.offset),
            )

    def committed(self, group: str, topic: str) -> Position | None:
        return self.groups().get(group, {}).get(topic)

    def groups(self) -> dict[str, dict[str, Position]]:
        epoch = self.epoch
        found: dict[str, dict[str, Position]] = {}
        with self._file.reading() as connection:
            for group, topic, offset in connection.execute(
                'SELECT "group", topic, "offset" FROM position ORDER BY 1, 2'
            ):
                found.setdefault(group, {})[topic] = Position(epoch, topic, offset)
        return found

    def leave(self, group: str) -> None:
        with self._file.writing() as connection:
            connection.execute('DELETE FROM position WHERE "group" = ?', (group,))

    def prune(self, *, older_than_s: float) -> int:
        before = self._clock() - older_than_s
        total = 0
        for topic in self.topics():
            while deleted := self._prune_some(topic, before):
                total += deleted
        return total

    def _prune_some(self, topic: str, before: float) -> int:
        """Delete at most PRUNE_ROWS records; the groups are asked again in each transaction."""
        with self._file.writing() as connection:
            view = _View(connection, topic)
            up_to = min(_prunable(connection, view, before), view.first + PRUNE_ROWS)
            if up_to <= view.first:
                return 0
            base = view.id << SHIFT
            connection.execute(
                "DELETE FROM record WHERE id >= ? AND id < ?", (base + view.first, base + up_to)
            )
            connection.execute(
                'DELETE FROM append WHERE topic = ? AND "end" <= ?', (view.id, up_to)
            )
            connection.execute("UPDATE topic SET first = ? WHERE id = ?", (up_to, view.id))
            return up_to - view.first

    def forget(self, label: str, key: str) -> int:
        """
        Scans the whole log: there is no index by key, because each append would pay for it.

        The old content is overwritten on the disk, too (secure_delete, and a
        checkpoint that empties the write-ahead log).
        """
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT id FROM record WHERE label = ? AND key = ?", (label, key)
            ).fetchall()
        with self._file.writing() as connection:
            connection.execute("PRAGMA secure_delete=ON")
            connection.executemany(
                "UPDATE record SET before = NULL, after = NULL, context = NULL WHERE id = ?", found
            )
            connection.execute("PRAGMA secure_delete=FAST")
        self._file.scrub()
        return len(found)

    def close(self) -> None:
        self._file.close()


def _by_topic(rows: Sequence[tuple[Any, ...]]) -> dict[str, Sequence[tuple[Any, ...]]]:
    """Split rows by topic, each part in its order; most batches are of one topic and stay as is."""
    topics = {row[0] for row in rows}
    if len(topics) <= 1:
        return dict.fromkeys(topics, rows)
    return {topic: [row for row in rows if row[0] == topic] for topic in sorted(topics)}


def _cursor(connection: sqlite3.Connection, source: str) -> str | None:
    row = connection.execute("SELECT cursor FROM producer WHERE source = ?", (source,)).fetchone()
    return row[0] if row else None


def _insert(
    connection: sqlite3.Connection, topic: str, rows: Sequence[tuple[Any, ...]], now: float
) -> None:
    """Write `rows` after the topic's last record; readers do not see them yet."""
    connection.execute("INSERT OR IGNORE INTO topic (name) VALUES (?)", (topic,))
    number, start = connection.execute(
        "SELECT id, next FROM topic WHERE name = ?", (topic,)
    ).fetchone()
    base = (number << SHIFT) + start
    connection.executemany(INSERT, [(base + n, *row[1:]) for n, row in enumerate(rows)])
    end = start + len(rows)
    connection.execute("UPDATE topic SET next = ? WHERE id = ?", (end, number))
    connection.execute("INSERT INTO append VALUES (?, ?, ?, 0)", (number, end, now))


def _complete(connection: sqlite3.Connection) -> None:
    """Let readers see everything appended so far: a transaction of the source ends here."""
    connection.execute(
        'UPDATE append SET whole = 1 WHERE (topic, "end") IN'
        " (SELECT id, next FROM topic WHERE boundary < next)"
    )
    connection.execute("UPDATE topic SET boundary = next WHERE boundary < next")


def _prunable(connection: sqlite3.Connection, view: _View, before: float) -> int:
    """Return the offset below which every record is old enough and read by every group."""
    (passed,) = connection.execute(
        'SELECT min("offset") FROM position WHERE topic = ?', (view.topic,)
    ).fetchone()
    passed = view.boundary if passed is None else min(passed, view.boundary)
    (young,) = connection.execute(
        'SELECT min("end") FROM append WHERE topic = ? AND appended_at > ?', (view.id, before)
    ).fetchone()
    (old,) = connection.execute(
        'SELECT max("end") FROM append WHERE topic = ?1 AND "end" <= ?2 AND "end" < ?3',
        (view.id, passed, young if young is not None else passed + 1),
    ).fetchone()
    return old or view.first


_open: dict[Path, EmbeddedLog] = {}


def open_log(options: dict[str, Any]) -> EmbeddedLog:
    """Return this process's log at NAME, or beside the first store. Raises ConfigurationError."""
    from ..conf import log_path
    from ..errors import ConfigurationError

    if unknown := sorted(set(options) - {"NAME"}):
        raise ConfigurationError(
            f"LEVADA['LOG'] gives the embedded log the option {unknown[0]!r}, which it has not. "
            f"Its only option is NAME, the path of its file."
        )
    path = log_path().absolute()
    return _open.get(path) or _open.setdefault(path, EmbeddedLog(path))
