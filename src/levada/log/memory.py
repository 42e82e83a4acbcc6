"""
A log in the memory of one process, for tests: everything the embedded log does, but no file.

What the relay has appended here dies with the process, and the outbox has
let it go: never a log for data that anybody would miss.
"""

from __future__ import annotations

import bisect
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from ..changes import Batch, Position, Record
from ..errors import LogFenced
from .reading import check_kept, check_log, read_batch

KEY = Record._fields.index("key")
LABEL = Record._fields.index("label")
BEFORE = Record._fields.index("before")
AFTER = Record._fields.index("after")
CONTEXT = Record._fields.index("context")


class _Topic:
    """One topic: its records and where its appends ended. It is its own `TopicView`."""

    def __init__(self) -> None:
        self.first = 0
        self.boundary = 0
        self.records: list[tuple[Any, ...]] = []
        self.ends: list[int] = []
        self.whole: list[bool] = []
        self.appended_at: list[float] = []

    @property
    def next(self) -> int:
        return self.first + len(self.records)

    def rows(self, start: int, stop: int) -> list[tuple[Any, ...]]:
        return self.records[start - self.first : stop - self.first]

    def last_end(self, start: int, stop: int) -> int:
        at = bisect.bisect_right(self.ends, stop) - 1
        while at >= 0 and self.ends[at] > start:
            if self.whole[at]:
                return self.ends[at]
            at -= 1
        return start

    def next_end(self, after: int) -> int:
        at = bisect.bisect_right(self.ends, after)
        return next(
            end for end, whole in zip(self.ends[at:], self.whole[at:], strict=True) if whole
        )

    def age_of(self, offset: int, now: float) -> float:
        if offset >= self.boundary:
            return 0.0
        return max(0.0, now - self.appended_at[bisect.bisect_right(self.ends, offset)])

    def append(self, name: str, rows: list[tuple[Any, ...]], now: float) -> None:
        start = self.next
        self.records += [(start + n, name, *row[1:]) for n, row in enumerate(rows)]
        self.ends.append(self.next)
        self.whole.append(False)
        self.appended_at.append(now)

    def complete(self) -> None:
        if self.boundary < self.next:
            self.boundary = self.next
            self.whole[-1] = True

    def prune(self, up_to: int) -> int:
        gone = max(0, up_to - self.first)
        keep_from = bisect.bisect_right(self.ends, up_to)
        del self.records[:gone]
        del self.ends[:keep_from], self.whole[:keep_from], self.appended_at[:keep_from]
        self.first += gone
        return gone


class MemoryLog:
    """The `Log` contract in memory; share one object between relay and readers."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.epoch = uuid.uuid4().hex
        self.name = "the log in memory"
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._topics: dict[str, _Topic] = {}
        self._cursors: dict[str, str] = {}
        self._groups: dict[str, dict[str, Position]] = {}

    def append(
        self,
        rows: Sequence[tuple[Any, ...]],
        *,
        source: str,
        expected: str | None,
        cursor: str,
        whole: bool = True,
    ) -> None:
        by_topic: dict[str, list[tuple[Any, ...]]] = {}
        for row in rows:
            by_topic.setdefault(row[0], []).append(row)
        with self._changed:
            found = self._cursors.get(source)
            if found != expected:
                raise LogFenced(fenced(self.name, source, expected, found))
            now = self._clock()
            for name, part in by_topic.items():
                self._topics.setdefault(name, _Topic()).append(name, part, now)
            if whole:
                for topic in self._topics.values():
                    topic.complete()
            self._cursors[source] = cursor
            self._changed.notify_all()

    def cursor(self, source: str) -> str | None:
        return self._cursors.get(source)

    def read(self, position: Position, limit: int, *, split: bool = False) -> Batch:
        check_log(position, self.epoch, self.name)
        with self._changed:
            view = self._topics.get(position.topic) or _Topic()
            check_kept(position, view, self.name)
            return read_batch(view, position, limit, split=split)

    def beginning(self, topic: str) -> Position:
        with self._changed:
            return Position(self.epoch, topic, (self._topics.get(topic) or _Topic()).first)

    def end(self, topic: str) -> Position:
        with self._changed:
            return Position(self.epoch, topic, (self._topics.get(topic) or _Topic()).boundary)

    def age_s(self, position: Position) -> float:
        check_log(position, self.epoch, self.name)
        with self._changed:
            topic = self._topics.get(position.topic) or _Topic()
            return topic.age_of(position.offset, self._clock())

    def size_bytes(self) -> int:
        with self._changed:
            return sum(
                len(value)
                for topic in self._topics.values()
                for record in topic.records
                for value in record
                if isinstance(value, str)
            )

    def topics(self) -> tuple[str, ...]:
        with self._changed:
            return tuple(sorted(name for name, each in self._topics.items() if each.boundary))

    def wait(self, position: Position, timeout_s: float) -> bool:
        check_log(position, self.epoch, self.name)
        with self._changed:
            return self._changed.wait_for(
                lambda: self.end(position.topic).offset > position.offset, timeout_s
            )

    def commit(self, group: str, position: Position) -> None:
        check_log(position, self.epoch, self.name)
        with self._changed:
            self._groups.setdefault(group, {})[position.topic] = position

    def committed(self, group: str, topic: str) -> Position | None:
        return self._groups.get(group, {}).get(topic)

    def groups(self) -> dict[str, dict[str, Position]]:
        with self._changed:
            return {group: dict(positions) for group, positions in self._groups.items()}

    def leave(self, group: str) -> None:
        with self._changed:
            self._groups.pop(group, None)

    def prune(self, *, older_than_s: float) -> int:
        with self._changed:
            before = self._clock() - older_than_s
            return sum(self._prune(name, topic, before) for name, topic in self._topics.items())

    def _prune(self, name: str, topic: _Topic, before: float) -> int:
        positions = [each[name].offset for each in self._groups.values() if name in each]
        passed = min([topic.boundary, *positions])
        old = [
            end
            for end, at in zip(topic.ends, topic.appended_at, strict=True)
            if at <= before and end <= passed
        ]
        return topic.prune(max(old, default=topic.first))

    def forget(self, label: str, key: str) -> int:
        count = 0
        with self._changed:
            for topic in self._topics.values():
                for at, record in enumerate(topic.records):
                    if record[LABEL] == label and record[KEY] == key:
                        topic.records[at] = _blank(record)
                        count += 1
        return count

    def close(self) -> None:
        """Nothing to release; the records stay."""


def fenced(log: str, source: str, expected: str | None, found: str | None) -> str:
    """Return the message of LogFenced."""
    return (
        f"another relay has fed {log} from {source!r}: its cursor is {found}, "
        f"this relay expected {expected}. Nothing was written; keep one relay only, "
        f"see: manage.py levada status"
    )


def _blank(record: tuple[Any, ...]) -> tuple[Any, ...]:
    values = list(record)
    values[BEFORE] = values[AFTER] = values[CONTEXT] = None
    return tuple(values)


_shared = MemoryLog()


def open_log(options: dict[str, Any]) -> MemoryLog:
    """Return this process's one log in memory; it has no options. Raises ConfigurationError."""
    if set(options) - {"NAME"}:
        from ..errors import ConfigurationError

        raise ConfigurationError(
            f"LEVADA['LOG'] gives the log in memory the option {sorted(options)[0]!r}, "
            f"but it has none. Write: {{'ENGINE': 'levada.log.memory'}}"
        )
    return _shared
