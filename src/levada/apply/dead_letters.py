"""
Dead letters of stores: what a store could not take, kept until a person decides.

The letter is written before the store's position passes the record, and
(consumer, epoch, topic, offset) is unique, so a crash in between writes it
once. The row in the store stays as it was before the record, and verify names
it as a difference until the letter is retried or the row changes again.

`retry` does not apply the old image, which may be older than the row by now:
it reads the row's current state from the source and puts it in the place of
whatever the store has for that key, at a position that covers what was read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import duckdb
from django.db import transaction
from django.utils import timezone

from levada.changes import CHANGES, Position, Record, SourcePosition
from levada.conf import settings, store_aliases
from levada.contracts import Log, Source
from levada.errors import (
    ConfigurationError,
    PoisonRecord,
    PositionMoved,
    SchemaDrift,
    StoreBusy,
    Timeout,
)
from levada.outbox.models import DeadLetter
from levada.stores import open_store
from levada.stores.duckdb.store import DuckDBStore
from levada.tables import TableSpec

from .shapes import shapes_in
from .snapshot import Unreadable, open_reader

SNAPSHOT = "snapshot"
"""The topic of a letter about a row read from the source, which has no offset in the log."""

WAIT_S = 0.05


def write(consumer: str, epoch: str, record: Record, reason: str, *, tries: int = 1) -> None:
    """Keep `record` of the log `epoch` as a letter; once, however often it is called."""
    _keep(
        consumer, epoch, record.topic, record.offset, record.label, record.key,
        json.dumps(record._asdict(), ensure_ascii=False), reason, tries,
    )  # fmt: skip


def write_row(
    consumer: str, epoch: str, label: str, key: str, texts: Mapping[str, str | None], reason: str
) -> None:
    """Keep a row of the source that a rebuild could not load; once for each key."""
    digest = hashlib.sha256(f"{label} {key}".encode()).digest()
    offset = int.from_bytes(digest[:8], "big") >> 1
    record = json.dumps(texts, ensure_ascii=False)
    _keep(consumer, epoch, SNAPSHOT, offset, label, key, record, reason, 1)


def _keep(
    consumer: str, epoch: str, topic: str, offset: int, label: str, key: str | None,
    record: str, reason: str, tries: int,
) -> None:  # fmt: skip
    found, created = DeadLetter.objects.using(settings.SOURCE).get_or_create(
        consumer=consumer, epoch=epoch, topic=topic, offset=offset,
        defaults={"label": label, "key": key or "", "record": record,
                  "reason": reason, "tries": tries},
    )  # fmt: skip
    if not created and topic == SNAPSHOT:
        # The same row failed again in a later rebuild: it waits again.
        found.record, found.reason, found.tries = record, reason, found.tries + 1
        found.state, found.decided_at = DeadLetter.State.WAITING, None
        found.save(using=settings.SOURCE)


def drop(id: int) -> None:
    """Decide that letter `id` needs nothing more; what the store has stays as it is."""
    _decide(_waiting(id), DeadLetter.State.DROPPED)


def retry(
    id: int,
    *,
    timeout_s: float = 30.0,
    store: DuckDBStore | None = None,
    log: Log | None = None,
    source: Source | None = None,
) -> None:
    """
    Bring the row that letter `id` is about to its current state in the store.

    Raises PoisonRecord if the store cannot take the current state either (the
    letter waits on, with one more try); Timeout if relay and applier do not
    catch up with the source in time; SchemaDrift if the table must be rebuilt.
    """
    letter = _waiting(id)
    if letter.consumer not in store_aliases():
        from . import handlers

        handlers.retry(letter)
        return
    from levada.log import open_log
    from levada.outbox.sources import open_source

    work = Retry(
        store or open_store(letter.consumer), log or open_log(), source or open_source(), letter
    )
    try:
        work.run(time.monotonic() + timeout_s)
    except PoisonRecord as error:
        letter.tries += 1
        letter.reason = str(error)
        letter.save(using=settings.SOURCE, update_fields=["tries", "reason"])
        raise
    finally:
        if store is None:
            work.store.close()
        if log is None:
            work.log.close()
        if source is None:
            work.source.close()
    _decide(letter, DeadLetter.State.RETRIED)


def _waiting(id: int) -> DeadLetter:
    letter = DeadLetter.objects.using(settings.SOURCE).filter(pk=id).first()
    if letter is None or letter.state != DeadLetter.State.WAITING:
        state = "does not exist" if letter is None else f"was {letter.state} already"
        raise ConfigurationError(
            f"Dead letter {id} {state}. See those that wait: manage.py levada dead-letters"
        )
    return letter


def _decide(letter: DeadLetter, state: DeadLetter.State) -> None:
    with transaction.atomic(using=settings.SOURCE):
        letter.state, letter.decided_at = state, timezone.now()
        letter.save(using=settings.SOURCE, update_fields=["state", "decided_at"])


class Retry:
    """One letter's row, read again at a snapshot of the source and put into the store."""

    def __init__(self, store: DuckDBStore, log: Log, source: Source, letter: DeadLetter) -> None:
        self.store = store
        self.log = log
        self.source = source
        self.letter = letter

    def run(self, deadline: float) -> None:
        """Do it before the monotonic time `deadline`."""
        start = self.log.end(CHANGES)
        with self.source.snapshot() as snapshot:
            spec = self._spec(shapes_in(snapshot))
            reader = open_reader(snapshot, spec)
            raw = [row for rows in reader.chunks(self._key()) for row in rows]
            shown = snapshot.position
        try:
            row = reader.arrow(raw) if raw else None
        except Unreadable as error:
            raise self._poison(error) from error
        covering = self._covering(shown, deadline)
        while True:
            position = self._reached(covering, deadline)
            if self._changed_since(start, position, shown):
                return  # the applier has met a newer change of this row; it or its letter counts
            try:
                self.store.put_row(spec, self._key_record(), row, expected=position)
            except (PositionMoved, StoreBusy):
                time.sleep(WAIT_S)
                _check(deadline, self.letter)
            except duckdb.DataError as error:
                raise self._poison(error) from error
            else:
                return

    def _spec(self, shapes: Mapping[str, TableSpec]) -> TableSpec:
        held = self.store.specs().get(self.letter.label)
        now = shapes.get(self.letter.label)
        if held is None or held != now:
            raise SchemaDrift(
                f"{self.letter.label} has another shape in the source than in {self.store.alias}. "
                f"Run: manage.py levada rebuild {self.store.alias} --table {self.letter.label}",
                {self.letter.label},
            )
        return held

    def _key(self) -> list[Any]:
        key: list[Any] = json.loads(self.letter.key, parse_float=str)
        return key

    def _key_record(self) -> str:
        return self.letter.key

    def _covering(self, shown: SourcePosition, deadline: float) -> Position:
        """Wait until the log holds everything `shown`; return a position after it."""
        while not self.source.covers(self.log.cursor(self.source.alias), shown):
            self.log.wait(self.log.end(CHANGES), WAIT_S)
            _check(deadline, self.letter)
        return self.log.end(CHANGES)

    def _reached(self, covering: Position, deadline: float) -> Position:
        """Wait until the store has come to `covering`; return its position."""
        while True:
            position = self.store.position()
            if position is not None and position.covers(covering):
                return position
            time.sleep(WAIT_S)
            _check(deadline, self.letter)

    def _changed_since(self, at: Position, end: Position, shown: SourcePosition) -> bool:
        """Say whether the log between the two has a change of this row that was not `shown`."""
        while at.offset < end.offset:
            limit = min(settings.BATCH_ROWS, end.offset - at.offset)
            batch = self.log.read(at, limit, split=True)
            for record in batch:
                same = record.label == self.letter.label and record.key in (None, self.letter.key)
                if same and not self.source.visible(record, shown):
                    return True
            at = batch.end
        return False

    def _poison(self, error: Exception) -> PoisonRecord:
        return PoisonRecord(
            f"{self.store.alias} cannot take the row {self.letter.key} of {self.letter.label} "
            f"as it is now either: {str(error).splitlines()[0]}. Correct it in the source."
        )


def _check(deadline: float, letter: DeadLetter) -> None:
    if time.monotonic() > deadline:
        raise Timeout(
            f"{letter.consumer} did not catch up with the source in time to retry letter "
            f"{letter.pk}. Is the keeper running? See: manage.py levada status {letter.consumer}"
        )
