"""
The applier: carries the log into one store, batch by batch.

It holds no lock of its own. What makes two appliers on one store harmless is
the store's compare-and-set on its position; the one that loses stops.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Collection
from contextlib import suppress

import duckdb
from django.db import connections

from levada import faults
from levada.changes import Batch, Position
from levada.conf import settings
from levada.contracts import Log, Source
from levada.errors import LevadaError, LogError, PoisonRecord, PositionMoved, SchemaDrift
from levada.stores.duckdb.store import DuckDBStore

from . import dead_letters
from .lag import Lag, lag
from .rebuilding import Progress, Rebuild, _silent
from .shapes import fingerprints, wanted_labels

logger = logging.getLogger("levada.apply")

LINGER_S = 0.02
"""
The least time between two transactions of a loaded applier.

A DuckDB transaction costs 1.3–5 ms of CPU, so at most 50 a second. A change
that comes after a pause longer than this is applied at once.
"""

SHAPES_S = 1.0
"""How often the source is asked whether a table has changed its shape without a change of a row."""

COMMIT_S = 1.0
"""How often the log is told how far this store is; retention alone depends on it."""

WAIT_S = 0.5
"""How long one wait for the log takes at most; a stopped applier ends that soon."""

BACKOFF_S = (0.05, 5.0)
"""The first and the longest pause after an error; it doubles in between."""


class _Stopped(Exception):
    """The applier was told to stop between two parts of a transaction, which is rolled back."""


class Applier:
    """
    Applies the log to `store`. Used by one thread, except for `lag()` and `error`.

    error: what the last step failed with, None after one that succeeded.
    progress: of the rebuilds it makes by itself, as `rebuild()` takes it.
    """

    def __init__(
        self, store: DuckDBStore, log: Log, source: Source, *, progress: Progress = _silent
    ) -> None:
        self.store = store
        self.log = log
        self.source = source
        self.progress = progress
        self.error: Exception | None = None
        self.position: Position | None = None
        self.applied = 0
        self._generation = -1
        self._ready = False
        self._stop = threading.Event()
        self._part: Batch | None = None
        self._limit: int | None = None
        self._tries = 0
        self._looked_at = -SHAPES_S
        self._committed_at = -COMMIT_S
        self._committed: Position | None = None

    def lag(self) -> Lag:
        """Return how far the store was behind the log after the last step."""
        return lag(self.position, self.log)

    def step(self) -> int:
        """
        Apply one batch; returns how many records it had, 0 where there was nothing to do.

        A transaction of the source that is larger than a batch is applied in
        parts, one in memory at a time, and committed with the last of them.
        Fills tables that the store should hold and does not, drops those it
        should hold no longer, rebuilds those whose shape has changed.
        Raises PositionMoved if another applier writes to the store, then this
        one must stop; SchemaDrift and PoisonRecord where the settings say
        halt; whatever else the store or the log raise, then try again.
        """
        if not self._ready:
            self._prepare()
        if self.position is None or self._shapes_due():
            self._follow_shapes()
        if self.position is None:
            return 0
        batch = self._read(self.position)
        passed = self._apply(batch) if batch else 0
        self._commit_group(lazily=bool(batch))
        return passed

    def run(self, stop: threading.Event) -> None:
        """
        Step until `stop` is set; errors are logged and tried again after a growing pause.

        A stop in the middle of a large transaction undoes its parts; the next
        run applies them again. Raises PositionMoved: another applier has taken over.
        """
        self._stop = stop
        pause_s = 0.0
        try:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    applied = self.step()
                except _Stopped:
                    break
                except PositionMoved as error:
                    self.error = error
                    raise
                except Exception as error:
                    pause_s = self._failed(error, pause_s)
                    stop.wait(pause_s * random.uniform(0.8, 1.2))
                else:
                    self.error, pause_s = None, 0.0
                    self._pause(stop, applied, began)
        finally:
            self._stop = threading.Event()
            self.close()

    def close(self) -> None:
        """Tell the log how far the store is, and close the store's connection."""
        with suppress(LogError):
            self._commit_group(lazily=False)
        self.store.close()
        self._ready = False

    # Waiting.

    def _pause(self, stop: threading.Event, applied: int, began: float) -> None:
        """Wait for the log; under load until the next batch is worth its transaction."""
        if applied >= settings.BATCH_ROWS:
            return
        if applied:
            rest = LINGER_S - (time.monotonic() - began)
            if rest > 0:
                stop.wait(rest)
        if self.position is None:
            stop.wait(SHAPES_S)
        else:
            self.log.wait(self.position, min(WAIT_S, SHAPES_S))

    def _failed(self, error: Exception, pause_s: float) -> float:
        """Log `error` and return how long to pause."""
        self.error = error
        self._ready = False
        self.store.close()
        connections[self.source.alias].close_if_unusable_or_obsolete()
        first, longest = BACKOFF_S
        pause_s = min(longest, max(first, 2 * pause_s))
        level = logging.WARNING if isinstance(error, LevadaError) else logging.ERROR
        logger.log(
            level,
            "%s: %s; next try in %.2f s",
            self.store.alias,
            error,
            pause_s,
            exc_info=None if isinstance(error, LevadaError) else error,
        )
        return pause_s

    def _commit_group(self, *, lazily: bool) -> None:
        """Tell the log the store's position; `lazily`: only now and then."""
        if self.position is None or self.position == self._committed:
            return
        if lazily and time.monotonic() - self._committed_at < COMMIT_S:
            return
        self.log.commit(self.store.alias, self.position)
        self._committed, self._committed_at = self.position, time.monotonic()

    # Shapes.

    def _prepare(self) -> None:
        """Read where the store stands, drop what it should hold no longer."""
        self._reload()
        gone = set(self.store.specs()) - wanted_labels(self.store.alias)
        if gone:
            logger.info("%s: dropping %s", self.store.alias, ", ".join(sorted(gone)))
            self.store.drop_tables(gone)
            self._reload()
        self._ready = True

    def _reload(self) -> None:
        self._generation = self.store.generation()
        self.position = self.store.position()

    def _shapes_due(self) -> bool:
        return time.monotonic() - self._looked_at >= SHAPES_S

    def _follow_shapes(self) -> None:
        """Rebuild every table that the source has in another shape than the store, or alone."""
        shapes = fingerprints(self.source)
        held = {label: spec.fingerprint for label, spec in self.store.specs().items()}
        wanted = wanted_labels(self.store.alias) & shapes.keys()
        missing = (wanted - held.keys()) | (wanted & self.store.missing_tables())
        drifted = {label for label in wanted - missing if held[label] != shapes[label]}
        if drifted and settings.ON_DRIFT == "halt":
            raise self._drift(drifted)
        if missing or drifted:
            self._rebuild(missing | drifted)
        self._looked_at = time.monotonic()

    def _drift(self, labels: Collection[str]) -> SchemaDrift:
        names = ", ".join(sorted(labels))
        return SchemaDrift(
            f"{names} changed its shape in the source, and LEVADA['ON_DRIFT'] is 'halt'. "
            f"Run: manage.py levada rebuild {self.store.alias}",
            labels,
        )

    def _rebuild(self, labels: Collection[str]) -> None:
        logger.info("%s: rebuilding %s", self.store.alias, ", ".join(sorted(labels)))
        Rebuild(self.store, self.log, self.source, frozenset(labels), progress=self.progress).run()
        self._reload()

    # Applying.

    def _read(self, at: Position) -> Batch:
        """Read a batch, which may be a part of a transaction."""
        return self.log.read(at, self._limit or settings.BATCH_ROWS, split=True)

    def _next_part(self, at: Position) -> Batch:
        """Read on in a transaction that comes in parts. Raises _Stopped."""
        if self._stop.is_set():
            raise _Stopped
        self._part = self._read(at)
        return self._part

    def _apply(self, batch: Batch) -> int:
        """Apply `batch`, with the parts that follow it; returns how many records that were."""
        skip: set[int] = set()
        while True:
            self._part = batch
            try:
                self.position = self.store.apply(
                    batch, expected=self.position, skip=skip, read=self._next_part
                )
            except PoisonRecord as poison:
                skip |= self._set_aside(self._part, poison)
                self._look_ahead(self._part, skip)
            except SchemaDrift as drift:
                if settings.ON_DRIFT == "halt":
                    raise
                self._rebuild(drift.labels)
                return len(batch)
            except PositionMoved:
                if self.store.generation() == self._generation:
                    raise
                self._reload()  # a rebuild moved it: go on from there
                return len(batch)
            except duckdb.Error as error:
                skip |= self._suspect(batch, self._part, error)
            else:
                passed = self.position.offset - batch.start.offset
                self.applied += passed
                self._limit, self._tries = None, 0
                return passed

    def _look_ahead(self, part: Batch, skip: set[int]) -> None:
        """
        Set aside the poison in the rest of a transaction that comes in parts, adding it to `skip`.

        The transaction must begin again for the first; without this it would
        begin again for each part with poison.
        """
        with suppress(SchemaDrift):  # the next try will come to it, and says what to do
            while not part.whole:
                part = self._next_part(part.end)
                while poison := self.store.poison_in(part, skip):
                    skip |= self._set_aside(part, poison)

    def _set_aside(self, batch: Batch, poison: PoisonRecord) -> set[int]:
        """Write the letters of the records that `poison` names; returns their offsets."""
        if settings.ON_POISON == "halt" or not poison.reasons:
            raise poison
        faults.point("apply.before_letter")
        first = batch.rows[0][0]
        for offset, reason in poison.reasons.items():
            record = batch[offset - first]
            dead_letters.write(
                self.store.alias, self.log.epoch, record, reason, tries=max(1, self._tries)
            )
            logger.warning(
                "%s: dead letter for %s %s at offset %d: %s",
                self.store.alias, record.label, record.key, offset, reason,
            )  # fmt: skip
        faults.point("apply.after_letter")
        return set(poison.reasons)

    def _suspect(self, batch: Batch, part: Batch, error: duckdb.Error) -> set[int]:
        """
        Narrow down a failure that no value explains; returns the offsets of poison found.

        part: of the transaction that begins with `batch`, where it failed.
        Tries the batch RETRIES times, then ever smaller ones, then record by
        record. Raises `error` as long as it is not down to records.
        """
        self._looked_at = -SHAPES_S  # perhaps somebody dropped a table
        if isinstance(error, duckdb.OperationalError):
            raise error  # the disk, the memory, the connection: nothing a record did
        self._tries += 1
        if self._tries < settings.RETRIES:
            raise error
        # Parts of one transaction are committed together: smaller ones would lead nowhere.
        if batch.whole and len(batch) > 1:
            self._limit, self._tries = len(batch) // 2, 0
            raise error
        reasons = self._probe(part)
        if not reasons:
            raise error
        return self._set_aside(part, PoisonRecord(str(error), reasons))

    def _probe(self, batch: Batch) -> dict[int, str]:
        """Return the reason for each record that fails alone, by offset, halving `batch`."""
        reason = self.store.probe(batch)
        if reason is None:
            return {}
        if len(batch) == 1:
            return {batch.rows[0][0]: reason}
        half = len(batch) // 2
        halves = (batch.rows[:half], batch.rows[half:])
        first, second = (self._probe(Batch(rows, batch.start, batch.end)) for rows in halves)
        return first | second
