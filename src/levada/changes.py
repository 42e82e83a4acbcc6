"""
The values that travel: what happened to one row, and how far somebody has come.

A row change leaves its table as an *outbox row*, becomes a *record* of the log
when the relay appends it, and is handed to appliers and handlers in *batches*.
The images (`before`, `after`) stay JSON text all the way: nobody between the
trigger and the store decodes them. `levada.tables` says how each kind of
column is written in an image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from .errors import ForeignPosition

CHANGES = "changes"
"""The topic of the embedded log that holds every row change, in commit order."""

INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE = "c", "u", "d", "t", "m"
"""Operations, in Debezium's letters: create, update, delete, truncate, message."""


class OutboxRow(NamedTuple):
    """
    One row of the outbox, as the relay reads it, in the column order of the log.

    topic: `changes` for a row change, the user's topic for a message.
    label: `app_label.Model` as Django writes it; empty for a message.
    op: one of c, u, d, t, m. An update that alters the primary key is
        captured as d (old key) then c (new key), so a record has one key.
    key: the primary key as a JSON array in column order, `[42]`, `["a",7]`;
        for a message the user's key as JSON; null for truncate.
    before, after: the row's image as a JSON object, column name to value;
        after is the payload of a message.
    fingerprint: of the table's shape when the trigger was made.
    transaction: the source's transaction number; on PostgreSQL the 64-bit xid.
    source_id: the outbox id: unique and rising in the source, but on
        PostgreSQL not in commit order. The log's offset is the order.
    changed_at: when the statement ran, ISO-8601 UTC text.
    context: null or a JSON object with `actor` and `request_id`.
    """

    topic: str
    label: str
    op: str
    key: str | None
    before: str | None
    after: str | None
    fingerprint: str
    transaction: int | None
    source_id: int
    changed_at: str
    context: str | None


class Record(NamedTuple):
    """One record of the log: its offset (counted from 0) and what the outbox row said."""

    offset: int
    topic: str
    label: str
    op: str
    key: str | None
    before: str | None
    after: str | None
    fingerprint: str
    transaction: int | None
    source_id: int
    changed_at: str
    context: str | None


class Batch(Sequence[Record]):
    """
    Records of one topic in offset order, without gaps.

    `start` is the position before the first record, `end` the one after the
    last. `whole` says that the batch ends between two source transactions.
    It does, unless the reader asked `Log.read` to split what is larger than
    its limit: then the records up to the next whole batch belong together,
    and all of them can be read at once.
    """

    __slots__ = ("end", "rows", "start", "whole")

    def __init__(
        self,
        rows: Sequence[tuple[Any, ...]],
        start: Position,
        end: Position,
        whole: bool = True,
    ) -> None:
        self.rows = rows
        self.start = start
        self.end = end
        self.whole = whole

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [Record(*row) for row in self.rows[index]]
        return Record(*self.rows[index])

    def __iter__(self) -> Iterator[Record]:
        return (Record(*row) for row in self.rows)

    def column(self, name: str) -> list[Any]:
        """Return one field of every record, without making a `Record` of each."""
        at = Record._fields.index(name)
        return [row[at] for row in self.rows]


@dataclass(frozen=True, slots=True)
class Change:
    """
    One row change or message with its JSON decoded, as handlers and tests see it.

    Numbers with a fraction or exponent arrive as Decimal, so no digit is lost.
    """

    position: Position
    label: str
    op: str
    key: tuple[Any, ...]
    before: dict[str, Any] | None
    after: Any
    transaction: int | None
    source_id: int
    changed_at: str
    actor: str | None
    request_id: str | None

    @classmethod
    def from_record(cls, record: Record, epoch: str) -> Change:
        """Decode `record` of the log whose epoch is `epoch`."""
        context = json.loads(record.context) if record.context else {}
        key = _decode(record.key)
        return cls(
            position=Position(epoch, record.topic, record.offset + 1),
            label=record.label,
            op=record.op,
            key=() if key is None else tuple(key) if isinstance(key, list) else (key,),
            before=_decode(record.before),
            after=_decode(record.after),
            transaction=record.transaction,
            source_id=record.source_id,
            changed_at=record.changed_at,
            actor=context.get("actor"),
            request_id=context.get("request_id"),
        )


def _decode(text: str | None) -> Any:
    return None if text is None else json.loads(text, parse_float=Decimal)


@dataclass(frozen=True, slots=True)
class Position:
    """
    How far somebody has come in one topic of one log.

    epoch: the log's identity, drawn when it was created; positions of
        different epochs cannot be compared.
    topic: the topic (the embedded log has one partition a topic).
    offset: the offset of the next record to read; 0 is the beginning.
    """

    epoch: str
    topic: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.topic}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what `str(position)` wrote. Raises ForeignPosition for anything else."""
        epoch, _, rest = text.partition(":")
        topic, _, offset = rest.rpartition(":")
        if not (epoch and topic and offset.isdecimal()):
            raise ForeignPosition(
                f"{text!r} is not a position. Positions read epoch:topic:offset; "
                f"see: manage.py levada status"
            )
        return cls(epoch, topic, int(offset))

    def covers(self, other: Position) -> bool:
        """Say whether everything up to `other` is behind us. Raises ForeignPosition."""
        self._same_log(other)
        return self.offset >= other.offset

    def lag(self, other: Position) -> int:
        """Count the records between us and `other`, never below 0. Raises ForeignPosition."""
        self._same_log(other)
        return max(0, other.offset - self.offset)

    def _same_log(self, other: Position) -> None:
        if (self.epoch, self.topic) != (other.epoch, other.topic):
            raise ForeignPosition(
                f"position {other} does not belong to topic {self.topic!r} of log {self.epoch}. "
                f"If the log was replaced, run: manage.py levada rebuild"
            )


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """
    What one source database had committed at one moment, before any relay saw it.

    source: the database alias.
    cursor: on SQLite the highest committed outbox id, as text; on PostgreSQL
        `pg_current_snapshot()` as text, `xmin:xmax:xip,xip`.

    `levada.position()` returns it after a commit, `levada.wait_for()` takes it.
    """

    source: str
    cursor: str
