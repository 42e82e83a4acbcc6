"""
Handlers: log to the project's own functions, each record once in effect and in order.

A `HandlerRunner` reads the topics of one consumer group. Each call of a
handler runs in one transaction of the source database that first moves the
group's position there, by compare-and-set: the row lock makes a second runner
wait and then fail, and whatever undoes the handler's writes undoes the move.

    read from the position ─ portions ─ [move · handler · commit] ─ … ─ tell the log
                                              │ raised: rolled back, later again,
                                              └ too often: a dead letter, or halt
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from django.db import DatabaseError, close_old_connections, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError
from django.utils import timezone

from .. import faults
from ..changes import INSERT, UPDATE, Batch, Change, Position, Record
from ..conf import settings
from ..contracts import Log
from ..errors import ForeignPosition, HandlerFailed, PositionMoved
from ..outbox.models import DeadLetter, GroupPosition
from .subscriptions import Subscription, check_captured, discover, registry, subscribe

__all__ = ["HandlerRunner", "discover", "groups", "move", "retry", "subscribe"]

logger = logging.getLogger("levada.handlers")

LONGEST_PAUSE_S = 300.0
WAIT_S = 0.2
"""How long a wait for news may keep a stopped runner."""
SAVE_EVERY_S = 1.0
"""How far behind the stored position of a group may be that only passes others' records."""

OnError = Literal["retry", "raise"]


def groups() -> tuple[str, ...]:
    """Import the project's handlers and return the names of their groups, sorted."""
    return tuple(discover())


class Portion(NamedTuple):
    """Records for one call of one handler, and the position after them."""

    subscription: Subscription
    records: Sequence[Record]
    end: Position


def portions(
    batch: Batch, subscriptions: Sequence[Subscription], singly_until: int = 0
) -> Iterator[Portion]:
    """
    Divide `batch` into calls, in order; a record nobody takes, or one forgotten, is in none.

    A call ends where the next record is for another handler, at the handler's
    `batch_rows`, and after each record below the offset `singly_until`.
    """
    taken: list[Record] = []
    taker: Subscription | None = None
    for record in batch:
        wanted = next((each for each in subscriptions if each.takes(record.label)), None)
        if wanted is None or is_forgotten(record):
            continue
        if taker and (wanted is not taker or _is_full(taken, taker, singly_until)):
            yield _portion(batch, taker, taken)
            taken = []
        taker = wanted
        taken.append(record)
    if taker:
        yield _portion(batch, taker, taken)


def is_forgotten(record: Record) -> bool:
    """
    Say whether `forget` took the row out of an insert or update.

    Its deletion follows in the log, so there is nothing to tell a handler. The
    deletion itself is told, with `before` None: its key is enough to act on.
    """
    return record.after is None and record.op in (INSERT, UPDATE)


def _is_full(taken: Sequence[Record], taker: Subscription, singly_until: int) -> bool:
    return len(taken) >= taker.batch_rows or taken[-1].offset < singly_until


def _portion(batch: Batch, taker: Subscription, taken: list[Record]) -> Portion:
    end = Position(batch.end.epoch, batch.end.topic, taken[-1].offset + 1)
    return Portion(taker, taken, end)


def pause_s(tries: int, backoff_s: float) -> float:
    """Return how long to wait after the failure number `tries`, counted from 1."""
    return min(LONGEST_PAUSE_S, backoff_s * 2.0 ** min(tries - 1, 30))


@dataclass(slots=True)
class _Reader:
    """
    How far a runner is in one topic.

    stored: the position in the database. read: the same, or ahead of it by
    records nobody takes. due_at: when a failed record is tried again.
    singly_until: a batch failed; up to this offset records are handled one
    by one, so that only the guilty one counts as a failure.
    """

    topic: str
    subscriptions: tuple[Subscription, ...]
    stored: Position
    read: Position
    due_at: float = 0.0
    saved_at: float = 0.0
    singly_until: int = 0


class HandlerRunner:
    """
    Calls the handlers of one consumer group with what the log holds for them.

    clock: for pauses; seconds that only rise. on_error: `raise` passes a
    handler's exception on to whoever called `step()`, after the rollback.
    Raises ConfigurationError for a group without handlers, UnknownModel for a
    subscription to a model that is not captured.
    """

    def __init__(
        self,
        group: str,
        log: Log,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_error: OnError = "retry",
    ) -> None:
        self.group = group
        self.log = log
        self.source_alias: str = settings.SOURCE
        self.subscriptions = registry.of(group)
        check_captured(self.subscriptions)
        self._clock = clock
        self.on_error: OnError = on_error
        self._readers: dict[str, _Reader] = {}
        self._stop = threading.Event()

    def step(self) -> int:
        """
        Handle what one read of each topic gives; return how many records that passed.

        0 means that there is nothing to do now: no records, or a failed one
        that is not due yet. Raises PositionMoved when another runner of this
        group was faster, HandlerFailed when `on_poison` is `halt`.
        """
        return sum(self._step(topic) for topic in self._topics())

    def run(self, stop: threading.Event) -> None:
        """Handle records as they come until `stop` is set; ends between two calls."""
        self._stop = stop
        while not stop.is_set():
            close_old_connections()
            if not self.step():
                self._wait()
        self.save()

    def save(self) -> None:
        """Store the position of records that were passed without a handler for them."""
        for reader in self._readers.values():
            self._save(reader)

    def due_in_s(self) -> float | None:
        """Return the seconds until a failed record is tried again; None when none has failed."""
        due = [reader.due_at for reader in self._readers.values() if reader.due_at]
        return max(0.0, min(due) - self._clock()) if due else None

    # Reading.

    def _topics(self) -> list[str]:
        return sorted({each.topic for each in self.subscriptions})

    def _step(self, topic: str) -> int:
        reader = self._readers.get(topic) or self._open(topic)
        if self._clock() < reader.due_at:
            return 0
        reader.due_at = 0.0
        start = reader.read
        # In parts: each call commits alone, so a large transaction need not be in memory.
        batch = self.log.read(start, settings.BATCH_ROWS, split=True)
        if not batch:
            self._save_at_times(reader)
            return 0
        for portion in portions(batch, reader.subscriptions, reader.singly_until):
            if self._stop.is_set() or not self._handle(reader, portion):
                break
        else:
            reader.read = batch.end
            self._save_at_times(reader)
        self.log.commit(self.group, reader.stored)
        if reader.read == start and reader.singly_until > start.offset and not reader.due_at:
            return 0 if self._stop.is_set() else self._step(topic)
        return reader.read.offset - start.offset

    def _open(self, topic: str) -> _Reader:
        """Find the group's position, or make it; tell the log, so that retention waits for us."""
        of_topic = tuple(each for each in self.subscriptions if each.topic == topic)
        from_end = all(each.start == "end" for each in of_topic)
        start = self.log.end(topic) if from_end else self.log.beginning(topic)
        row, _ = GroupPosition.objects.using(self.source_alias).get_or_create(
            group=self.group, topic=topic, defaults={"epoch": start.epoch, "offset": start.offset}
        )
        if row.epoch != self.log.epoch:
            raise ForeignPosition(
                f"group {self.group!r} is at {row.position}, in another log than the one in use "
                f"(epoch {self.log.epoch}). If the log was replaced, choose where the group goes "
                f"on: manage.py levada replay {self.group}"
            )
        self.log.commit(self.group, row.position)
        reader = _Reader(topic, of_topic, row.position, row.position, saved_at=self._clock())
        self._readers[topic] = reader
        return reader

    def _wait(self) -> None:
        """Wait for news, or until a failed record is due."""
        if len(self._readers) > 1:
            self._stop.wait(settings.POLL_S)
            return
        (reader,) = self._readers.values()
        due_in_s = self.due_in_s()
        if due_in_s is None:
            self.log.wait(reader.read, WAIT_S)
        else:
            self._stop.wait(due_in_s)

    # Handling.

    def _handle(self, reader: _Reader, portion: Portion) -> bool:
        """Call the handler for `portion`; return whether the position is behind it now."""
        changes = [Change.from_record(each, self.log.epoch) for each in portion.records]
        moved = False
        faults.point("handlers.before_move")
        try:
            with transaction.atomic(using=self.source_alias, durable=True):
                self._move(reader, portion.end)
                moved = True
                portion.subscription.call(changes)
                self._check_usable(portion.subscription)
                faults.point("handlers.before_commit")
        except Exception as error:
            if not moved:
                raise  # the database's or another runner's doing, no failure of the handler
            return self._failed(reader, portion, error)
        faults.point("handlers.after_commit")
        self._passed(reader, portion.end)
        return True

    def _move(self, reader: _Reader, end: Position) -> None:
        """Move the stored position in the open transaction. Raises PositionMoved."""
        moved = (
            self._rows(reader.stored)
            .filter(offset=reader.stored.offset)
            .update(offset=end.offset, tries=0, reason="", moved_at=timezone.now())
        )
        if not moved:
            raise PositionMoved(
                f"group {self.group!r} is no longer at {reader.stored}: another runner of it "
                f"moved on, this one stops. See who runs: manage.py levada status"
            )

    def _rows(self, position: Position):  # type: ignore[no-untyped-def]  # a QuerySet of ours
        return GroupPosition.objects.using(self.source_alias).filter(
            group=self.group, topic=position.topic, epoch=position.epoch
        )

    def _check_usable(self, subscription: Subscription) -> None:
        """
        Raise if the handler swallowed an error that broke the transaction.

        PostgreSQL answers COMMIT of a broken transaction with a silent
        rollback: the record would be lost, with the position ahead of it.
        """
        if _is_broken(connections[self.source_alias]):
            raise TransactionManagementError(
                f"{subscription.name} caught a database error that had already broken its "
                f"transaction. Put what may fail into a transaction.atomic() block of its own."
            )

    def _passed(self, reader: _Reader, end: Position) -> None:
        reader.stored = reader.read = end
        reader.due_at = 0.0
        reader.saved_at = self._clock()

    def _failed(self, reader: _Reader, portion: Portion, error: Exception) -> bool:
        """Note a failure; return whether the record is out of the way."""
        row = self._rows(reader.stored).get()
        if row.offset == portion.end.offset:
            # The connection broke while it committed, and the commit had come through.
            self._passed(reader, portion.end)
            return True
        if self.on_error == "raise":
            raise error
        if len(portion.records) > 1:
            reader.singly_until = portion.end.offset
            return False
        subscription, tries = portion.subscription, row.tries + 1
        reason = f"{type(error).__name__}: {error}"
        self._log_failure(portion, tries, error)
        if tries >= self._tries_allowed(subscription):
            return self._give_up(reader, portion, reason, tries)
        self._rows(reader.stored).filter(offset=reader.stored.offset).update(
            tries=tries, reason=reason
        )
        reader.due_at = self._clock() + pause_s(tries, subscription.backoff_s)
        return False

    def _tries_allowed(self, subscription: Subscription) -> int:
        return int(settings.RETRIES if subscription.retries is None else subscription.retries)

    def _log_failure(self, portion: Portion, tries: int, error: Exception) -> None:
        record = portion.records[0]
        logger.warning(
            "%s failed at %s offset %d, try %d of %d",
            portion.subscription.name,
            record.topic,
            record.offset,
            tries,
            self._tries_allowed(portion.subscription),
            exc_info=error,
            extra={"group": self.group, "topic": record.topic, "offset": record.offset},
        )

    def _give_up(self, reader: _Reader, portion: Portion, reason: str, tries: int) -> bool:
        """Write the dead letter and move on, in one transaction; or halt."""
        record, subscription = portion.records[0], portion.subscription
        if (subscription.on_poison or settings.ON_POISON) == "halt":
            raise HandlerFailed(
                f"{subscription.name} failed {tries} times at record {record.offset} of topic "
                f"{record.topic!r} ({reason}); group {self.group!r} halts there. Mend the handler "
                f"and start the keeper again."
            )
        with transaction.atomic(using=self.source_alias, durable=True):
            self._move(reader, portion.end)
            DeadLetter.objects.using(self.source_alias).update_or_create(
                consumer=self.group,
                epoch=self.log.epoch,
                topic=record.topic,
                offset=record.offset,
                defaults={
                    "label": record.label,
                    "key": record.key or "",
                    "record": json.dumps(record._asdict(), ensure_ascii=False),
                    "reason": reason,
                    "tries": tries,
                    "state": DeadLetter.State.WAITING,
                    "decided_at": None,
                },
            )
        self._passed(reader, portion.end)
        return True

    # Records that nobody takes.

    def _save_at_times(self, reader: _Reader) -> None:
        """Save now and then only: a write for every record of others would load the source."""
        passed = reader.read.offset - reader.stored.offset
        if passed >= settings.BATCH_ROWS or self._clock() - reader.saved_at >= SAVE_EVERY_S:
            self._save(reader)

    def _save(self, reader: _Reader) -> None:
        if reader.read == reader.stored:
            return
        with transaction.atomic(using=self.source_alias):
            self._move(reader, reader.read)
        reader.stored = reader.read
        reader.saved_at = self._clock()
        self.log.commit(self.group, reader.stored)


def _is_broken(connection: BaseDatabaseWrapper) -> bool:
    """Say whether the open transaction can only be rolled back."""
    if connection.needs_rollback:
        return True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return True
    return False


def move(group: str, position: Position, log: Log) -> None:
    """
    Have `group` go on at `position`, back for a replay or forward to leave records out.

    Stop the keeper of the group first: a running one notices with
    PositionMoved and starts again. Raises ForeignPosition for another log.
    """
    if position.epoch != log.epoch:
        raise ForeignPosition(
            f"position {position} is not of the log in use (epoch {log.epoch}). "
            f"Positions of this log: manage.py levada status"
        )
    GroupPosition.objects.using(settings.SOURCE).update_or_create(
        group=group,
        topic=position.topic,
        defaults={
            "epoch": position.epoch,
            "offset": position.offset,
            "tries": 0,
            "reason": "",
            "moved_at": timezone.now(),
        },
    )
    log.commit(group, position)


def retry(letter: DeadLetter) -> None:
    """
    Call the handler of the letter's group with its record once more; on success it is `retried`.

    The handler's writes and the letter's new state commit together. Raises
    what the handler raises, then the letter waits on; ConfigurationError if
    no handler of the group takes the record any more.
    """
    record = Record(**json.loads(letter.record))
    subscription = _taker(letter.consumer, record)
    with transaction.atomic(using=settings.SOURCE):
        DeadLetter.objects.using(settings.SOURCE).filter(pk=letter.pk).update(
            state=DeadLetter.State.RETRIED, decided_at=timezone.now()
        )
        subscription.call([Change.from_record(record, letter.epoch)])
    letter.refresh_from_db(using=settings.SOURCE)


def _taker(group: str, record: Record) -> Subscription:
    from ..errors import ConfigurationError

    discover()
    for each in registry.of(group):
        if each.topic == record.topic and each.takes(record.label):
            return each
    raise ConfigurationError(
        f"no handler of group {group!r} subscribes to topic {record.topic!r}"
        f"{f' for {record.label}' if record.label else ''} any more. "
        f"Drop the letter: manage.py levada dead-letters --drop"
    )
