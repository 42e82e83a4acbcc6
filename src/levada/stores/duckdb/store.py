"""
The DuckDB replica as a store: changes, position and table shapes in one transaction.

A replica table has the backend's column types but no key and no index:
1_000 scattered keys in 5M rows are deleted and inserted in 24 ms, against
86 ms with a primary key and 1.3 s for ON CONFLICT (DuckDB 2.0.0). That a key
occurs once is this module's promise, and verify's to prove.

Two tables of its own lie in the store:

    levada_position  topic, epoch, offset and `generation`, which every change
                     of the tables' shapes raises, so that an applier in
                     another process notices a swap it did not make
    levada_held      label, spec and fingerprint of each table held
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

import duckdb
import pyarrow
from django.db import connections

from levada import faults
from levada.changes import CHANGES, TRUNCATE, Batch, Position, Record
from levada.errors import (
    ForeignPosition,
    PoisonRecord,
    PositionMoved,
    SchemaDrift,
    StoreBusy,
    StoreError,
    StoreMissing,
)
from levada.tables import TableSpec

from . import decode
from .base import DatabaseWrapper
from .comparing import Comparison
from .decode import quote
from .poison import refused
from .table_changes import TableChanges, changes_of

SHADOW = "levada_shadow_"
"""A table under construction is called this plus its final name."""

CREATE_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS levada_position (
        topic VARCHAR PRIMARY KEY, epoch VARCHAR, "offset" BIGINT, generation BIGINT
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS levada_held (
        label VARCHAR PRIMARY KEY, spec VARCHAR, fingerprint VARCHAR
    )
    """,
)
MOVE_POSITION = """
    UPDATE levada_position SET "offset" = ?
    WHERE topic = ? AND epoch = ? AND "offset" = ? RETURNING generation
"""
SET_POSITION = """
    INSERT OR REPLACE INTO levada_position (topic, epoch, "offset", generation)
    VALUES (?, ?, ?, ?)
"""
TURN_POSITION = """
    UPDATE levada_position SET epoch = ?, "offset" = ?, generation = generation + 1
    WHERE topic = ? AND epoch = ? AND "offset" = ? AND generation = ? RETURNING generation
"""
PLACE_POSITION = 'UPDATE levada_position SET "offset" = ? WHERE topic = ?'
REMEMBER_TABLE = "INSERT OR REPLACE INTO levada_held (label, spec, fingerprint) VALUES (?, ?, ?)"

FEW = 100
"""Up to so many changes go as parameters: an Arrow view costs 0.5 ms to make and to drop."""

FEW_CHANGED = (
    "WITH changed AS (SELECT unnest($1::VARCHAR[]) AS key, unnest($2::VARCHAR[]) AS image) "
)

ReadLog = Callable[[Position, int], Batch]
"""Reads the log: from a position, at most so many records; a large transaction comes in parts."""

ReadPart = Callable[[Position], Batch]
"""Reads the next part of a transaction that is larger than a batch."""


class _ShapesChanged(Exception):
    """Somebody swapped tables since the shapes were read."""


class DuckDBStore:
    """
    A DuckDB database that changes are applied to. Made for one thread at a time.

    connection: a `levada.stores.duckdb.connection.Connection` to use in place
    of one opened from `DATABASES[alias]`.
    create: make the file if there is none; else it is a store never filled.
    """

    def __init__(self, alias: str, connection: Any = None, *, create: bool = True) -> None:
        self.alias = alias
        self._create = create
        self._given = connection
        self._wrapper: Any = None
        self._generation: int | None = None
        self._specs: dict[str, TableSpec] = {}

    @property
    def connection(self) -> Any:
        """The store's own connection, opened on first use. Raises StoreMissing."""
        if self._given is not None:
            return self._given
        if self._wrapper is None:
            self._wrapper = connections.create_connection(self.alias)
            self._wrapper.create = self._create
        self._wrapper.ensure_connection()
        return self._wrapper.connection

    @property
    def data_types(self) -> decode.DataTypes:
        """Django's internal field types to DuckDB's, as the backend has them."""
        return DatabaseWrapper.data_types

    @property
    def path(self) -> str | None:
        """The database's file, None where it lies in memory."""
        if self._given is not None:
            return None
        name = str(connections[self.alias].settings_dict["NAME"])
        return None if name.startswith(":memory:") else name

    def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        self._generation = None
        if self._wrapper is not None:
            wrapper, self._wrapper = self._wrapper, None
            with suppress(Exception):
                wrapper.close()

    # Position and shapes.

    def position(self) -> Position | None:
        """Return the durable position, None for a store that was never filled."""
        state = self._state()
        return state[0] if state else None

    def generation(self) -> int:
        """Return how often the tables' shapes were changed, 0 for a store never filled."""
        state = self._state()
        return state[1] if state else 0

    def specs(self) -> dict[str, TableSpec]:
        """Return the specs of the tables the store holds, by label."""
        if not self._has("levada_held"):
            return {}
        rows = self.connection.execute("SELECT label, spec FROM levada_held").fetchall()
        return {label: TableSpec.from_json(spec) for label, spec in sorted(rows)}

    def missing_tables(self) -> frozenset[str]:
        """Return the labels of tables the store should hold but somebody dropped."""
        return frozenset(label for label, spec in self.specs().items() if not self._has(spec.table))

    def _state(self) -> tuple[Position, int] | None:
        if not self._has("levada_position"):
            return None
        rows = self.connection.execute(
            'SELECT epoch, topic, "offset", generation FROM levada_position WHERE topic = ?',
            [CHANGES],
        ).fetchall()
        return (Position(*rows[0][:3]), rows[0][3]) if rows else None

    def _has(self, table: str) -> bool:
        sql = (
            "SELECT 1 FROM duckdb_tables() WHERE table_name = ? "
            "AND database_name = current_database() AND schema_name = current_schema()"
        )
        try:
            return bool(self.connection.execute(sql, [table]).fetchall())
        except StoreMissing:
            return False

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Run the block in one transaction, rolled back if it raises."""
        connection = self.connection
        connection.begin()
        try:
            yield connection
            connection.commit()
        except BaseException:
            with suppress(duckdb.Error, StoreError):
                connection.rollback()
            raise

    # Applying.

    def apply(
        self,
        batch: Batch,
        *,
        expected: Position | None,
        skip: Collection[int] = (),
        read: ReadPart | None = None,
    ) -> Position:
        """
        Write `batch` and its end position in one transaction.

        Of several changes to a key the last wins.
        skip: offsets of records to leave out (their dead letters are written).
        read: gives the parts after a `batch` that is not whole. They join the
            transaction, one in memory at a time; what it raises rolls all back.
        Returns the position now durable; a replayed batch changes nothing.
        Raises, having written nothing: PositionMoved if the store's position
        is not `expected`; SchemaDrift if a record's fingerprint is not its
        table's; PoisonRecord naming every record of the part at hand that
        cannot be taken; StoreBusy on a conflict with another writer.
        """
        if expected is None:
            self._create_tables()
        while True:
            generation = self._refresh()
            written: list[TableChanges] = []
            try:
                changes = self._changes(batch, skip)
                faults.point("apply.before_transaction")
                with self._naming(expected, written), self.transaction():
                    self._check_shapes(self._move(expected, batch.end), generation)
                    self._write_changes(changes, "", written)
                    end = self._write_rest(batch, read, skip, written)
                    faults.point("apply.before_commit")
            except _ShapesChanged:
                self._generation = None
                continue
            faults.point("apply.after_commit")
            return end

    def _write_rest(
        self,
        batch: Batch,
        read: ReadPart | None,
        skip: Collection[int],
        written: list[TableChanges],
    ) -> Position:
        """Write the parts that follow `batch`, if it is not whole; returns the last one's end."""
        if batch.whole:
            return batch.end
        if read is None:
            raise ValueError(f"the batch ends inside a transaction, at {batch.end}: give `read`")
        part = batch
        while not part.whole:
            faults.point("apply.between_parts")
            part = read(part.end)
            self._write_changes(changes_of([part], self._specs, skip), "", written)
        self.connection.execute(PLACE_POSITION, [part.end.offset, part.end.topic])
        return part.end

    def _changes(self, batch: Batch, skip: Collection[int]) -> dict[str, TableChanges]:
        try:
            return changes_of([batch], self._specs, skip)
        except SchemaDrift:
            # The shapes remembered may be older than the store's.
            self._check_shapes(self.generation(), self._generation or 0)
            raise

    def _create_tables(self) -> None:
        for sql in CREATE_TABLES:
            self.connection.execute(sql)

    def _refresh(self) -> int:
        """Read the shapes again if they may have changed; returns their generation."""
        if self._generation is None:
            self._generation = self.generation()
            self._specs = self.specs()
        return self._generation

    def _check_shapes(self, found: int, generation: int) -> None:
        if found != generation:
            raise _ShapesChanged

    def _move(self, expected: Position | None, end: Position) -> int:
        """Move the position in the open transaction; returns the generation, or raises."""
        if expected is None:
            found = self.position()
            if found is not None:
                raise self._moved(expected, found)
            self.connection.execute(SET_POSITION, [end.topic, end.epoch, end.offset, 0])
            return 0
        rows = self.connection.execute(
            MOVE_POSITION, [end.offset, expected.topic, expected.epoch, expected.offset]
        ).fetchall()
        if not rows:
            raise self._moved(expected, self.position())
        return int(rows[0][0])

    def _moved(self, expected: Position | None, found: Position | None) -> PositionMoved:
        return PositionMoved(
            f"{self.alias} is at {found}, not at {expected}: another applier wrote to it, "
            f"this one stops. See who runs: manage.py levada status {self.alias}"
        )

    @contextmanager
    def _naming(self, expected: Position | None, written: Iterable[TableChanges]) -> Iterator[None]:
        """
        Turn DuckDB's refusals into PositionMoved, StoreBusy or PoisonRecord.

        written: what was being written, read only after a failure.
        """
        try:
            yield
        except duckdb.TransactionException as error:
            found = self.position()
            if found != expected:
                raise self._moved(expected, found) from error
            raise StoreBusy(
                f"Another transaction wrote to the same rows of {self.alias}; nothing was "
                f"written, try again. See: manage.py levada status {self.alias}"
            ) from error
        except duckdb.Error as error:
            poison = self._poison_in(written)
            if poison is None:
                raise
            raise poison from error

    def poison_in(self, batch: Batch, skip: Collection[int] = ()) -> PoisonRecord | None:
        """
        Return the error that names what `apply` could not take of `batch`, None if it takes all.

        Not inside a transaction. Raises SchemaDrift.
        """
        self._refresh()
        return self._poison_in(changes_of([batch], self._specs, skip).values())

    def _poison_in(self, written: Iterable[TableChanges]) -> PoisonRecord | None:
        reasons: dict[int, str] = {}
        for each in written:
            reasons |= refused(self.connection, each, self.data_types)
        if not reasons:
            return None
        offset = min(reasons)
        return PoisonRecord(
            f"{self.alias} cannot take {len(reasons)} record(s), the first at offset {offset}: "
            f"{reasons[offset]}. See: manage.py levada dead-letters",
            reasons,
        )

    def _write_changes(
        self, changes: Mapping[str, TableChanges], prefix: str, written: list[TableChanges]
    ) -> None:
        """Write to each table, called `prefix` plus its name, noting in `written` what it is."""
        # Only what is being written can be poison; keeping what was would fill the memory.
        written[:] = changes.values()
        for each in written:
            self._write(each, prefix + each.spec.table)

    def _write(self, changes: TableChanges, table: str) -> None:
        """Delete and insert in the open transaction. Raises duckdb.Error for any poison."""
        name, spec = quote(table), changes.spec
        if changes.suspicious():
            raise duckdb.DataError(f"a change of {spec.label} is not in canonical form")
        if changes.truncated:
            self.connection.execute(f"DELETE FROM {name}")
        if not changes.last:
            return
        if not changes.truncated:
            self._delete(name, spec, changes.arrow)
        rows = decode.rows_sql(spec, self.data_types)
        self._with_changed(f"INSERT INTO {name} {rows}", changes.arrow)

    def _delete(self, name: str, spec: TableSpec, changed: pyarrow.Table) -> None:
        same = " AND ".join(
            f"{name}.{quote(column)} = gone.k{index}" for index, column in enumerate(spec.key)
        )
        keys = decode.keys_sql(spec, self.data_types)
        self._with_changed(f"DELETE FROM {name} USING ({keys}) AS gone WHERE {same}", changed)

    def _with_changed(self, sql: str, changed: pyarrow.Table) -> None:
        """Run `sql`, which reads key and image of `changed` under that name."""
        if len(changed) > FEW:
            self.connection.execute(sql, arrow={"changed": changed})
            return
        columns = [changed["key"].to_pylist(), changed["image"].to_pylist()]
        self.connection.execute(FEW_CHANGED + sql, columns)

    def probe(self, batch: Batch) -> str | None:
        """Apply `batch` and take it back; returns DuckDB's complaint, None if it has none."""
        self._refresh()
        changes = changes_of([batch], self._specs)
        with self.looking():
            try:
                for each in changes.values():
                    self._write(each, each.spec.table)
            except duckdb.Error as error:
                return str(error).splitlines()[0]
        return None

    def put_row(
        self, spec: TableSpec, key: str, row: pyarrow.Table | None, *, expected: Position
    ) -> None:
        """
        Put `row` in the place of whatever stands at `key`, the position staying `expected`.

        key: as a JSON array. row: as `load_shadow` takes it; None for none.
        Raises PositionMoved, SchemaDrift, StoreBusy, and duckdb.Error if the row does not fit.
        """
        name = quote(spec.table)
        gone = pyarrow.table({"key": [key], "image": pyarrow.nulls(1, pyarrow.string())})
        with self._naming(expected, []), self.transaction():
            self._move(expected, expected)
            self._delete(name, spec, gone)
            if row is not None:
                select = decode.native_sql(spec, self.data_types)
                self.connection.execute(f"INSERT INTO {name} {select}", arrow={"chunk": row})

    # Comparing.

    @contextmanager
    def looking(self) -> Iterator[Position | None]:
        """Open a transaction that is rolled back in the end; gives the position it sees."""
        connection = self.connection
        connection.begin()
        try:
            yield self.position()
        finally:
            with suppress(duckdb.Error, StoreError):
                connection.rollback()

    def comparison(self, spec: TableSpec, poison: Collection[int]) -> Comparison:
        """Begin to compare one table inside `looking()`."""
        return Comparison(self.connection, self.data_types, spec, poison)

    def refused(self, records: Iterable[Record]) -> dict[int, str]:
        """
        Return the reason for each of `records` that the store could not take, by offset.

        Asked on a connection apart: the first refusal would abort an open transaction.
        """
        specs = self.specs()
        found: dict[str, TableChanges] = {}
        for record in records:
            spec = specs.get(record.label)
            if spec is not None and record.op != TRUNCATE:
                every = found.setdefault(record.label, TableChanges(spec))
                # By offset, not by key: each of them is asked about.
                every.last[str(record.offset)] = record
        reasons: dict[int, str] = {}
        with closing(self.connection.sibling()) as apart:
            for every in found.values():
                reasons |= refused(apart, every, self.data_types)
        return reasons

    # Building a table beside the one in use.

    def create_shadow(self, spec: TableSpec) -> None:
        """Create an empty shadow of `spec`'s table, in place of any left over."""
        shadow = SHADOW + spec.table
        self.connection.execute(f"DROP TABLE IF EXISTS {quote(shadow)}")
        self.connection.execute(decode.create_sql(shadow, spec, self.data_types))

    def load_shadow(self, spec: TableSpec, rows: pyarrow.Table) -> None:
        """
        Append rows of a source snapshot to the shadow, in a transaction of its own.

        rows: columns in `spec`'s order, as `levada.apply.snapshot` reads them.
        Raises duckdb.Error if a value does not fit.
        """
        select = decode.native_sql(spec, self.data_types)
        self.connection.execute(
            f"INSERT INTO {quote(SHADOW + spec.table)} {select}", arrow={"chunk": rows}
        )

    def replay_shadows(
        self, specs: Mapping[str, TableSpec], batch: Batch, skip: Collection[int] = ()
    ) -> None:
        """Apply `batch` to the shadows of `specs`. Raises SchemaDrift and PoisonRecord."""
        changes = changes_of([batch], specs, skip)
        written: list[TableChanges] = []
        with self._naming(self.position(), written), self.transaction():
            self._write_changes(changes, SHADOW, written)

    def shadows(self) -> list[str]:
        """Return the names of the tables under construction, or left over from a crash."""
        rows = self.connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE starts_with(table_name, ?) "
            "AND database_name = current_database()",
            [SHADOW],
        ).fetchall()
        return sorted(name for (name,) in rows)

    def drop_shadows(self) -> None:
        """Drop every table under construction."""
        for name in self.shadows():
            self.connection.execute(f"DROP TABLE IF EXISTS {quote(name)}")

    def swap(
        self,
        specs: Mapping[str, TableSpec],
        position: Position,
        read: ReadLog,
        skip: Collection[int] = (),
    ) -> Position:
        """
        Put the shadows of `specs` in the place of their tables, in one transaction.

        position: that all the shadows have reached. The transaction first
        brings shadows and the other tables to one position by applying what
        `read` gives, a batch at a time, so that the store moves from one whole
        state to another and never back: see `levada.apply.rebuild` for the proof.
        Returns the store's position after it. Raises PositionMoved if an
        applier committed meanwhile (call again), SchemaDrift, PoisonRecord.
        """
        self._create_tables()
        state, held = self._state(), self.specs()
        others = {label: spec for label, spec in held.items() if label not in specs}
        written: list[TableChanges] = []
        with self._naming(state[0] if state else None, written), self.transaction():
            # First the claim: from here on an applier's commit conflicts with this one.
            self._turn(state, position)
            end = self._join(state, position, (specs, others), read, skip, written)
            self.connection.execute(PLACE_POSITION, [end.offset, end.topic])
            for label, spec in specs.items():
                self._replace(held.get(label), spec)
            faults.point("rebuild.before_swap")
        self._generation = None
        faults.point("rebuild.after_swap")
        return end

    def _join(
        self,
        state: tuple[Position, int] | None,
        shadows_at: Position,
        tables: tuple[Mapping[str, TableSpec], Mapping[str, TableSpec]],
        read: ReadLog,
        skip: Collection[int],
        written: list[TableChanges],
    ) -> Position:
        """Bring shadows and the other tables to one position, the later of theirs; returns it."""
        shadows, others = tables
        others_at = state[0] if state else shadows_at
        if others_at.epoch != shadows_at.epoch:
            if others:
                raise ForeignPosition(
                    f"{self.alias} is at {others_at}, the log's epoch is {shadows_at.epoch}: "
                    f"the log was replaced. Run: manage.py levada rebuild {self.alias}"
                )
            others_at = shadows_at
        while shadows_at.offset != others_at.offset:
            if shadows_at.offset < others_at.offset:
                batch = read(shadows_at, others_at.offset - shadows_at.offset)
                self._write_changes(changes_of([batch], shadows, skip), SHADOW, written)
                shadows_at = batch.end
            elif not others:
                others_at = shadows_at
            else:
                batch = read(others_at, shadows_at.offset - others_at.offset)
                self._write_changes(changes_of([batch], others, skip), "", written)
                others_at = batch.end
        return shadows_at

    def _turn(self, state: tuple[Position, int] | None, end: Position) -> None:
        """Move the position to `end` and raise the generation, if both are still `state`."""
        if state is None:
            if self._state() is not None:
                raise self._moved(None, self.position())
            self.connection.execute(SET_POSITION, [end.topic, end.epoch, end.offset, 1])
            return
        expected, generation = state
        rows = self.connection.execute(
            TURN_POSITION,
            [end.epoch, end.offset, expected.topic, expected.epoch, expected.offset, generation],
        ).fetchall()
        if not rows:
            raise self._moved(expected, self.position())

    def _replace(self, held: TableSpec | None, spec: TableSpec) -> None:
        """Drop the table and give its shadow its name, in the open transaction."""
        for table in {spec.table, held.table if held else spec.table}:
            self.connection.execute(f"DROP TABLE IF EXISTS {quote(table)}")
        shadow = quote(SHADOW + spec.table)
        self.connection.execute(f"ALTER TABLE {shadow} RENAME TO {quote(spec.table)}")
        self.connection.execute(REMEMBER_TABLE, [spec.label, spec.to_json(), spec.fingerprint])

    def drop_tables(self, labels: Collection[str]) -> None:
        """Drop the tables of `labels`. Raises PositionMoved and StoreBusy: call again."""
        state, held = self._state(), self.specs()
        going = [spec for label, spec in held.items() if label in labels]
        if state is None or not going:
            return
        with self._naming(state[0], []), self.transaction():
            self._turn(state, state[0])
            for spec in going:
                self.connection.execute(f"DROP TABLE IF EXISTS {quote(spec.table)}")
                self.connection.execute("DELETE FROM levada_held WHERE label = ?", [spec.label])
        self._generation = None
