"""
Verify: prove a store equal to its source, row by row, while writes go on.

    P0       note the end of the log
    σ        open a snapshot of the source, and keep it open
    wait     until the store has everything σ shows
    compare  in one transaction of the store, at its position P: the rows of σ,
             with the changes in [P0, P) that σ does not show laid over them

The rows of σ are read by column from the tables themselves, never from the
triggers' images (`levada.apply.snapshot`), so the path from trigger to store
is compared with something it had no part in. Only rows that changed in the
moment between σ and P are taken from their images. At P the store should
hold exactly that: a change below P0 is shown by σ; one in [P0, P) is shown,
or it comes after what σ shows of its row, as in `levada.apply.rebuilding`.

Nothing is stopped: the source's snapshot and the store's transaction each
keep their own version of the rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from levada.changes import CHANGES, Batch, Position, Record, SourcePosition
from levada.conf import settings
from levada.contracts import Log, Source, SourceSnapshot
from levada.errors import LogError, SchemaDrift, SourceUnavailable, StoreError, Timeout
from levada.stores import open_store
from levada.stores.duckdb.comparing import Comparison, Difference
from levada.stores.duckdb.store import DuckDBStore
from levada.stores.duckdb.table_changes import TableChanges, changes_of
from levada.tables import TableSpec

from .rebuilding import Progress, _open_log, _open_source, _silent
from .shapes import check_labels, driver_error, shapes_in, wanted_labels
from .snapshot import TableReader, Unreadable, open_reader

WAIT_S = 0.02
LABEL = Record._fields.index("label")


@dataclass(frozen=True, slots=True)
class TableVerification:
    """
    What was found about one table.

    different: how many rows differ; `differences` describes them, up to
    10_000. problem: why the table as a whole is wrong, None if it is not.
    """

    label: str
    source_rows: int
    store_rows: int
    differences: Sequence[Difference] = ()
    different: int = 0
    problem: str | None = None

    @property
    def equal(self) -> bool:
        """Say whether the store's table is the source's."""
        return self.problem is None and self.different == 0


@dataclass(frozen=True, slots=True)
class Verification:
    """
    What `verify` found: equal, different, or undecided.

    position: the store's, at which it was compared. undecided: why nothing
    can be said about some or all tables, None if all were compared; `equal`
    is False then.
    """

    alias: str
    position: Position | None
    tables: Sequence[TableVerification] = ()
    undecided: str | None = None
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """Say whether every table was compared and is equal."""
        return self.undecided is None and all(table.equal for table in self.tables)

    @property
    def different(self) -> int:
        """Count the rows that differ, and the tables that are wrong as a whole."""
        return sum(table.different + (table.problem is not None) for table in self.tables)

    def to_json(self) -> str:
        """Write the whole report as JSON."""
        return json.dumps(
            {
                "alias": self.alias,
                "equal": self.equal,
                "undecided": self.undecided,
                "position": str(self.position) if self.position else None,
                "seconds": round(self.seconds, 3),
                "tables": [{**asdict(each), "equal": each.equal} for each in self.tables],
            },
            ensure_ascii=False,
            indent=2,
        )


def verify(
    alias: str,
    labels: Iterable[str] | None = None,
    *,
    progress: Progress | None = None,
    timeout_s: float = 60.0,
    store: DuckDBStore | None = None,
    log: Log | None = None,
    source: Source | None = None,
) -> Verification:
    """
    Compare tables of the store `alias` with the source.

    labels: of the tables, by default all that REPLICATE sends to `alias`.
    timeout_s: how long the store may take to catch up with the source first.
    store, log, source: to use in place of those the settings name.
    Never raises for what it finds, nor where it cannot tell: see `Verification`.
    Raises UnknownModel and ConfigurationError.
    """
    chosen = frozenset(labels or ())
    check_labels(alias, chosen)
    own = _Verify(
        store=store or open_store(alias, create=False),
        log=log or _open_log(),
        source=source or _open_source(),
        labels=chosen or wanted_labels(alias),
        progress=progress or _silent,
        deadline=time.monotonic() + timeout_s,
    )
    began = time.monotonic()
    try:
        return own.run(began)
    finally:
        if store is None:
            own.store.close()
        if log is None:
            own.log.close()
        if source is None:
            own.source.close()


@dataclass
class _Verify:
    """One run of verify."""

    store: DuckDBStore
    log: Log
    source: Source
    labels: frozenset[str]
    progress: Progress
    deadline: float
    position: Position | None = None
    tables: list[TableVerification] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)

    def run(self, began: float) -> Verification:
        try:
            self._run()
        except (LogError, StoreError, SourceUnavailable, Timeout) as error:
            self.undecided.append(str(error))
        except driver_error(self.source.alias) as error:
            self.undecided.append(
                f"{self.source.alias} cannot be read by the columns its triggers were made for "
                f"({str(error).splitlines()[0]}). Was a table altered? Run: manage.py migrate"
            )
        return Verification(
            self.store.alias,
            self.position,
            tuple(self.tables),
            " ".join(self.undecided) or None,
            time.monotonic() - began,
        )

    def _run(self) -> None:
        start = self.log.end(CHANGES)
        with self.source.snapshot() as snapshot:
            shapes = shapes_in(snapshot)
            self._wait(snapshot.position)
            with self._looking(start, snapshot.position) as newer:
                held, gone = self.store.specs(), self.store.missing_tables()
                for label in sorted(self.labels):
                    spec = None if label in gone else held.get(label)
                    if self._comparable(label, spec, shapes.get(label)):
                        self._compare(snapshot, shapes[label], newer)

    # Reaching one position.

    def _wait(self, shown: SourcePosition) -> None:
        """Wait until the store has everything `shown`."""
        while not self.source.covers(self.log.cursor(self.source.alias), shown):
            self._check_deadline("the log")
            self.log.wait(self.log.end(CHANGES), WAIT_S)
        covering = self.log.end(CHANGES)
        while True:
            position = self.store.position()
            if position is not None and position.covers(covering):
                return
            self._check_deadline(self.store.alias)
            time.sleep(WAIT_S)

    def _check_deadline(self, who: str) -> None:
        if time.monotonic() > self.deadline:
            raise Timeout(
                f"{who} did not catch up with the source in time, so nothing could be compared. "
                f"Is the keeper running? See: manage.py levada status {self.store.alias}"
            )

    @contextmanager
    def _looking(self, start: Position, shown: SourcePosition) -> Iterator[_Newer]:
        """Open a transaction of the store; gives the changes up to it that are not `shown`."""
        with self.store.looking() as position:
            if position is None:
                raise StoreError(
                    f"{self.store.alias} was emptied a moment ago. "
                    f"Run: manage.py levada rebuild {self.store.alias}"
                )
            self.position = position
            newer, at = _Newer(self.log, self.source, shown, position.offset), start
            while at.offset < position.offset:
                limit = min(settings.BATCH_ROWS, position.offset - at.offset)
                batch = self.log.read(at, limit, split=True)
                records = newer.note(batch, self.labels)
                if records:
                    newer.poison.update(self.store.refused(records))
                at = batch.end
            yield newer

    # Comparing.

    def _comparable(self, label: str, held: TableSpec | None, now: TableSpec | None) -> bool:
        """Say whether rows can be compared; if not, note why."""
        if now is None:
            self.undecided.append(
                f"{label} is not captured in {self.source.alias}. Run: manage.py migrate"
            )
        elif held is None:
            self.tables.append(
                TableVerification(label, 0, 0, problem=f"{self.store.alias} has no such table")
            )
        elif held != now:
            self.undecided.append(
                f"{label} has another shape in the source than in {self.store.alias}. "
                f"Run: manage.py levada rebuild {self.store.alias} --table {label}"
            )
        return held is not None and held == now

    def _compare(self, snapshot: SourceSnapshot, spec: TableSpec, newer: _Newer) -> None:
        comparison = self.store.comparison(spec, newer.poison)
        try:
            for changes in newer.changes(spec):
                comparison.note(changes)
        except SchemaDrift as drift:
            self.undecided.append(str(drift))
            return
        comparison.noted()
        reader = open_reader(snapshot, spec)
        total, done = reader.count(), 0
        self.progress(spec.label, 0, total)
        for rows in reader.chunks():
            self._compare_rows(comparison, reader, rows)
            done += len(rows)
            self.progress(spec.label, done, total)
        for changes in newer.changes(spec):
            comparison.compare_newer(changes)
        store_rows = comparison.finish()
        self.tables.append(
            TableVerification(
                spec.label,
                comparison.expected_rows,
                store_rows,
                tuple(comparison.differences),
                comparison.different,
            )
        )

    def _compare_rows(self, comparison: Comparison, reader: TableReader, rows: Any) -> None:
        """Compare raw rows; those that cannot be read as what they should be are narrowed down."""
        try:
            chunk = reader.arrow(rows)
        except Unreadable as error:
            if len(rows) > 1:
                half = len(rows) // 2
                self._compare_rows(comparison, reader, rows[:half])
                self._compare_rows(comparison, reader, rows[half:])
                return
            texts = reader.texts(rows[0])
            key = {name: texts[name] for name in reader.spec.key}
            comparison.unreadable(key, error.column, texts[error.column])
        else:
            comparison.compare(chunk)


@dataclass
class _Newer:
    """
    The changes that the store has and the snapshot does not show.

    They stay in the log and are read again when their table is compared: in
    memory they could be a whole large transaction.

    end: the store's offset. poison: the offsets of those that no store can take.
    """

    log: Log
    source: Source
    shown: SourcePosition
    end: int
    poison: set[int] = field(default_factory=set)
    _spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    def note(self, batch: Batch, labels: Collection[str]) -> list[Record]:
        """Note where the changes of tables in `labels` stand; returns those in `batch`."""
        records = self._unseen(batch, labels)
        for record in records:
            first, _ = self._spans.get(record.label, (record.offset, 0))
            self._spans[record.label] = first, record.offset + 1
        return records

    def changes(self, spec: TableSpec) -> Iterator[TableChanges]:
        """Yield what they do to one table, batch after batch. Raises SchemaDrift."""
        first, last = self._spans.get(spec.label, (0, 0))
        at, end = Position(self.log.epoch, CHANGES, first), min(last, self.end)
        while at.offset < end:
            limit = min(settings.BATCH_ROWS, end - at.offset)
            batch = self.log.read(at, limit, split=True)
            rows = self._unseen(batch, {spec.label})
            yield from changes_of(
                [Batch(rows, batch.start, batch.end)], {spec.label: spec}
            ).values()
            at = batch.end

    def _unseen(self, batch: Batch, labels: Collection[str]) -> list[Record]:
        return [
            record
            for row in batch.rows
            if row[LABEL] in labels and not self.source.visible(record := Record(*row), self.shown)
        ]
