"""
Rebuild: make tables of a store again from the source, under live traffic, without readers noticing.

    P0       note the end of the log
    σ        open a snapshot of the source
    load     read the tables' rows in σ into shadow tables beside those in use
    replay   apply the log from P0 to the shadows, leaving out what σ shows,
             until the log position S of the shadows has everything σ shows
    swap     in one transaction of the store: bring shadows and the other
             tables to one position, give the shadows the tables' names, and
             move the position there

**Why it is right.** Claim: at S a shadow holds what the table's rows were at
log position S. Take one key. A record below P0 was committed before σ was
opened, so σ shows it. A record that σ does not show is therefore at or above
P0, and replay has applied it if it is below S. Records of one key lie in the
log in commit order, so those σ shows come before those it does not: the row
in σ plus the latter, in order, is the row after all of them. And every change
σ shows lies below S, so the shadow holds nothing from after S.

The swap reads the store's position P and claims the position's row before it
does anything else; a commit of the applier between reading and claiming
makes the claim fail (PositionMoved, the swap is tried again), one after it
conflicts with the claim (StoreBusy, the applier tries again). So the store
goes from one state that is whole at P to one that is whole at T = max(P, S):
where P < S the transaction applies (P, S] to the other tables itself, where
S < P it applies (S, P] to the shadows. It needs no applier, waits for none
and fences none off: the applier sees the generation has changed and goes on
from T. A reader inside a transaction keeps the tables it began with.

**Killed anywhere** it leaves the store as it was, plus shadow tables that the
next rebuild drops. One rebuild a store at a time: a lock on a file beside the
store, which the operating system releases when the process dies.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from levada import faults
from levada.changes import CHANGES, Batch, Position, SourcePosition
from levada.conf import settings
from levada.contracts import Log, Source, SourceSnapshot
from levada.errors import (
    AlreadyRunning,
    ConfigurationError,
    PoisonRecord,
    PositionLost,
    PositionMoved,
    SchemaDrift,
    StoreBusy,
    StoreError,
    Timeout,
)
from levada.stores import open_store
from levada.stores.duckdb.store import DuckDBStore
from levada.tables import TableSpec

from . import dead_letters
from .shapes import check_labels, driver_error, shapes_in, wanted_labels
from .snapshot import TableReader, Unreadable, open_reader

Progress = Callable[[str, int, int], None]
"""Called with a table's label, the rows done and the rows there are, again and again."""

STILL_S = 30.0
"""How long the log may stand still before a rebuild that waits for it gives up."""

WAIT_S = 0.2
"""How long one wait for the log takes at most."""

SWAP_S = 900.0
"""How long the swap may wait for the applier, which holds the store while it applies a large
transaction: about 20 s for a million rows on two busy cores."""

BUSY_S = 0.01
"""The pause after a swap that met the applier's transaction; most of them end within it."""

ATTEMPTS = 5
"""How often a rebuild starts again because tables changed their shape meanwhile."""


def rebuild(
    alias: str,
    labels: Iterable[str] | None = None,
    *,
    progress: Progress | None = None,
    pump: Callable[[], Any] | None = None,
    store: DuckDBStore | None = None,
    log: Log | None = None,
    source: Source | None = None,
) -> Position:
    """
    Build tables of the store `alias` again from the source and swap them in.

    labels: of the tables, by default all that REPLICATE sends to `alias`.
    pump: called while the log is waited for, for callers that have to run the
        relay themselves.
    store, log, source: to use in place of those the settings name.
    Returns the store's position after the swap.
    Raises UnknownModel; AlreadyRunning while another rebuild of `alias` runs;
    ConfigurationError where a table has no triggers yet; StoreFull, Timeout
    and others, all of which leave the store as it was.
    """
    chosen = frozenset(labels or ())
    check_labels(alias, chosen)
    own = Rebuild(
        store=store or open_store(alias),
        log=log or _open_log(),
        source=source or _open_source(),
        labels=chosen or wanted_labels(alias),
        progress=progress or _silent,
        pump=pump or _silent,
    )
    try:
        return own.run()
    finally:
        if store is None:
            own.store.close()
        if log is None:
            own.log.close()
        if source is None:
            own.source.close()


def _open_log() -> Log:
    from levada.log import open_log

    return open_log()


def _open_source() -> Source:
    from levada.outbox.sources import open_source

    return open_source()


def _silent(*args: Any) -> None:
    """Report to nobody."""


@dataclass
class Rebuild:
    """One rebuild: what it works on, and how far it is."""

    store: DuckDBStore
    log: Log
    source: Source
    labels: frozenset[str]
    progress: Progress = _silent
    pump: Callable[[], Any] = _silent
    skip: set[int] = field(default_factory=set)

    def run(self) -> Position:
        """Rebuild, again from the start where a table changes its shape meanwhile."""
        with rebuilding(self.store, self.labels):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    self.store.drop_shadows()
                    return self._once()
                except SchemaDrift as drift:
                    if attempt == ATTEMPTS:
                        raise
                    self.labels |= drift.labels
                except PositionLost:
                    if attempt == ATTEMPTS:
                        raise
                finally:
                    with suppress(duckdb.Error, StoreError):
                        self.store.drop_shadows()
        raise AssertionError("unreachable")

    def _once(self) -> Position:
        start = self.log.end(CHANGES)
        faults.point("rebuild.before_snapshot")
        with self.source.snapshot() as snapshot:
            specs = self._shapes(snapshot)
            for spec in specs.values():
                with self._naming_columns(spec):
                    self._load(snapshot, spec)
            shown = snapshot.position
        faults.point("rebuild.after_load")
        at = self._replay(specs, start, shown)
        return self._swap(specs, at)

    def _shapes(self, snapshot: SourceSnapshot) -> dict[str, TableSpec]:
        """Return the specs to build, as the source has them in `snapshot`."""
        shapes = shapes_in(snapshot)
        missing = sorted(self.labels - set(shapes))
        if missing:
            raise ConfigurationError(
                f"{', '.join(missing)}: no triggers capture this table in {self.source.alias!r}, "
                f"so a replica would miss its changes. Run: manage.py migrate"
            )
        return {label: shapes[label] for label in sorted(self.labels)}

    # Load.

    @contextmanager
    def _naming_columns(self, spec: TableSpec) -> Iterator[None]:
        """Say what it means when the source refuses to read the spec's columns."""
        try:
            yield
        except driver_error(self.source.alias) as error:
            raise ConfigurationError(
                f"{spec.label} cannot be read by the columns its triggers were made for "
                f"({str(error).splitlines()[0]}). Was the table altered? Run: manage.py migrate"
            ) from error

    def _load(self, snapshot: SourceSnapshot, spec: TableSpec) -> None:
        reader = open_reader(snapshot, spec)
        total, done = reader.count(), 0
        self.store.create_shadow(spec)
        self.progress(spec.label, 0, total)
        for rows in reader.chunks():
            self._load_rows(reader, rows)
            done += len(rows)
            faults.point("rebuild.in_load")
            self.progress(spec.label, done, total)

    def _load_rows(self, reader: TableReader, rows: Any) -> None:
        """Load raw rows; those the store cannot take are narrowed down and set aside."""
        try:
            self.store.load_shadow(reader.spec, reader.arrow(rows))
        except (Unreadable, duckdb.DataError) as error:
            if len(rows) > 1:
                half = len(rows) // 2
                self._load_rows(reader, rows[:half])
                self._load_rows(reader, rows[half:])
                return
            self._set_aside(reader, rows[0], error)

    def _set_aside(self, reader: TableReader, row: Any, error: Exception) -> None:
        reason = str(error).splitlines()[0]
        key = reader.key_text(row)
        if settings.ON_POISON == "halt":
            raise PoisonRecord(
                f"{self.store.alias} cannot take the row {key} of {reader.spec.label}: {reason}. "
                f"Correct it in the source, or set LEVADA['ON_POISON'] = 'dead_letter'"
            ) from error
        dead_letters.write_row(
            self.store.alias, self.log.epoch, reader.spec.label, key, reader.texts(row), reason
        )

    # Replay.

    def _replay(self, specs: dict[str, TableSpec], at: Position, shown: SourcePosition) -> Position:
        """
        Apply the log to the shadows until they have everything `shown`, and are near its end.

        Nobody reads a shadow, so a large transaction may be in it by half; the
        position returned is after a whole one.
        """
        for enough in self._coverage(shown):
            while batch := self._read(at, settings.BATCH_ROWS):
                at = self._replay_batch(specs, batch, shown)
                if batch.whole and enough is not None and at.offset >= enough.offset:
                    return at
            if enough is not None and at.offset >= enough.offset:
                return at
        raise AssertionError("unreachable")

    def _read(self, at: Position, limit: int) -> Batch:
        """Read at most `limit` records, and never more than a batch."""
        return self.log.read(at, min(limit, settings.BATCH_ROWS), split=True)

    def _coverage(self, shown: SourcePosition) -> Iterator[Position | None]:
        """Yield None until the log holds everything `shown`, from then on a position after it."""
        moved_at, seen = time.monotonic(), self.log.cursor(self.source.alias)
        enough: Position | None = None
        while True:
            # First the cursor, then the log's end: then the end is behind the cursor.
            cursor = self.log.cursor(self.source.alias)
            if enough is None and self.source.covers(cursor, shown):
                enough = self.log.end(CHANGES)
            yield enough
            if not self.pump():
                self.log.wait(self.log.end(CHANGES), WAIT_S)
            if enough is not None or cursor != seen:
                # Also in the middle of a large transaction, where the end stands still.
                moved_at, seen = time.monotonic(), cursor
            elif time.monotonic() - moved_at > STILL_S:
                raise Timeout(
                    f"The log has stood still for {STILL_S:.0f} s, and {self.store.alias} cannot "
                    f"be rebuilt without the newest changes. Run: manage.py levada run"
                )

    def _replay_batch(
        self, specs: dict[str, TableSpec], batch: Batch, shown: SourcePosition
    ) -> Position:
        rows = [
            record
            for record in batch
            if record.label in specs and not self.source.visible(record, shown)
        ]
        if rows:
            unseen = Batch(rows, batch.start, batch.end)
            self._setting_poison_aside(
                lambda: self.store.replay_shadows(specs, unseen, self.skip), unseen
            )
        faults.point("rebuild.in_replay")
        return batch.end

    def _setting_poison_aside(self, write: Callable[[], Any], *batches: Batch) -> Any:
        """Call `write`, again without the poison it names. Raises PoisonRecord under 'halt'."""
        while True:
            try:
                return write()
            except PoisonRecord as poison:
                if settings.ON_POISON == "halt" or not poison.reasons:
                    raise
                self._write_letters(poison.reasons)
                self.skip |= set(poison.reasons)

    def _write_letters(self, reasons: dict[int, str]) -> None:
        for offset, reason in reasons.items():
            position = Position(self.log.epoch, CHANGES, offset)
            record = self.log.read(position, 1, split=True)[0]
            dead_letters.write(self.store.alias, self.log.epoch, record, reason)

    # Swap.

    def _swap(self, specs: dict[str, TableSpec], at: Position) -> Position:
        """Swap, again and again while the applier is faster, or in a transaction of its own."""
        deadline = time.monotonic() + SWAP_S
        while True:
            try:
                end: Position = self._setting_poison_aside(
                    lambda: self.store.swap(specs, at, self._read, self.skip)
                )
            except PositionMoved:
                if time.monotonic() > deadline:
                    raise
            except StoreBusy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(BUSY_S)
            else:
                return end


# One rebuild a store at a time.

_in_memory: dict[str, threading.Lock] = {}


@contextmanager
def rebuilding(store: DuckDBStore, labels: Collection[str]) -> Iterator[None]:
    """
    Hold the store's rebuild lock for the block.

    Raises AlreadyRunning, naming who rebuilds what.
    """
    path = store.path
    if path is None:
        lock = _in_memory.setdefault(store.alias, threading.Lock())
        if not lock.acquire(blocking=False):
            raise _already(store.alias, "another thread")
        try:
            yield
        finally:
            lock.release()
        return
    descriptor = os.open(f"{path}.rebuild", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _already(store.alias, Path(f"{path}.rebuild").read_text() or "another") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}: {', '.join(sorted(labels))}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _already(alias: str, who: str) -> AlreadyRunning:
    return AlreadyRunning(
        f"{alias} is being rebuilt already ({who}). "
        f"Wait for it to end; see: manage.py levada status {alias}"
    )


__all__ = ["Progress", "Rebuild", "rebuild", "rebuilding"]
