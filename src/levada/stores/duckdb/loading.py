"""
Rows into a table at DuckDB's own speed.

    bulk_load(Order, "exports/*.parquet", using="analytics")

The rows come as Arrow, as a pandas or Polars frame, or from Parquet, CSV and
Arrow files, which this process reads. Nothing becomes a model instance: no
`save()`, no signals, no validation beyond the types and the table's constraints.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow
from django.db import NotSupportedError, connections, router, transaction
from django.db.models import AutoField, Field, Model
from django.utils import timezone

from ...conf import replicated_in
from ...errors import ReadOnlyTable, UnfitRows
from . import fitting
from .columnar import arrow_column, arrow_type
from .compiler import INCOMING
from .expressions import refuse_elsewhere
from .files import FileModel
from .sources import Rows, open_rows

__all__ = ["bulk_load"]

CHUNK_ROWS = 1_000_000
"""Rows of one INSERT, where they come as a stream: what is in memory at a time."""


def bulk_load(
    model: type[Model], source: Any, *, using: str | None = None, ignore_extra: bool = False
) -> int:
    """
    Insert the rows of `source` into the table of `model`, and return how many.

    source: a pyarrow Table, RecordBatch, RecordBatchReader or dataset; anything
        with `__arrow_c_stream__`, as frames of pandas and Polars; or the path of
        a .parquet, .csv, .arrow or .feather file, of a folder of Parquet files,
        or a pattern with `*`, on this machine or on object storage (`s3://…`).
    using: the database, by default the router's. ignore_extra: leave out columns
        that the model does not have.

    Columns are found by the name of the field or of its column, whatever their
    order. A field without one gets its default; a primary key without one, its
    sequence. All rows are loaded, or none: in the open transaction, or in one
    of their own.

    Raises UnfitRows for a column that is missing or unknown and for a value
    that is not, without a loss, of its field's type; IntegrityError where the
    table's constraints say no; ReadOnlyTable for a replicated model.
    """
    alias = using or router.db_for_write(model)
    connection = connections[alias]
    refuse_elsewhere("bulk_load()", connection)
    _check_model(model, alias)
    with closing(open_rows(source)) as rows:
        load = _plan(model, connection, rows, ignore_extra)
        with _transaction(connection):
            return load.run(rows)


def _check_model(model: type[Model], alias: str) -> None:
    """Raise for a model whose rows are not one table's, or not ours to write."""
    label = model._meta.label
    if issubclass(model, FileModel):
        raise ReadOnlyTable(f"{label} reads files, which cannot be written to by the ORM.")
    if model._meta.get_parent_list():
        raise NotSupportedError(
            f"{label} has its rows in several tables, by multi-table inheritance. "
            f"Load them one after the other, the parent's first."
        )
    concrete = model._meta.concrete_model or model
    if concrete._meta.label in replicated_in(alias):
        raise ReadOnlyTable(
            f"{label} is replicated to {alias!r}: its table belongs to the applier, which would "
            f"overwrite what is loaded. Load into the source, or take the model out of "
            f"LEVADA['REPLICATE'][{alias!r}]."
        )


@contextmanager
def _transaction(connection: Any) -> Iterator[None]:
    """Run in the open transaction, else in one that keeps no journal for savepoints."""
    connection.ensure_connection()
    connection.validate_thread_sharing()
    if connection.in_atomic_block:
        with connection.wrap_database_errors, transaction.atomic(using=connection.alias):
            yield
        return
    with connection.wrap_database_errors:
        connection.connection.begin()
        try:
            yield
            connection.connection.commit()
        except BaseException:
            connection.connection.rollback()
            raise


@dataclass
class _Load:
    """
    How rows become rows of one table.

    given: pairs of the data's column and its field. made: for fields the data
    has no column for, the field and a value, the same for all rows. drawn:
    fields whose default is called for each row. expressions: fields DuckDB
    makes a value for, and how.
    """

    connection: Any
    model: type[Model]
    given: list[tuple[str, Field[Any, Any]]] = field(default_factory=list)
    made: list[tuple[Field[Any, Any], Any]] = field(default_factory=list)
    drawn: list[Field[Any, Any]] = field(default_factory=list)
    expressions: list[tuple[Field[Any, Any], str]] = field(default_factory=list)

    def run(self, rows: Rows) -> int:
        """Insert all rows, chunk by chunk; returns how many. Raises UnfitRows."""
        loaded = 0
        for chunk in _chunks(rows.batches, rows.schema):
            table = self._fitted(chunk, loaded, rows)
            try:
                self.connection.connection.execute(
                    self._sql(), self._params(), arrow={INCOMING: table}
                )
            except duckdb.DataError:
                self._name_unfit(table, loaded)
                raise
            loaded += chunk.num_rows
        return loaded

    def _fitted(self, chunk: pyarrow.Table, before: int, rows: Rows) -> pyarrow.Table:
        """Return the chunk's columns c0, c1, … in the types of their fields."""
        columns = []
        for name, each in self.given:
            column = chunk.column(name)
            if rows.is_text and each.empty_strings_allowed and not each.null:
                column = fitting.empty_for_null(column)
            if not each.null or each.primary_key:
                self._refuse_null(column, name, before)
            wanted = arrow_type(each.db_type(self.connection) or "")
            if wanted is not None:
                try:
                    column = fitting.fit(column, wanted, self.connection.timezone_name)
                except fitting.Unfit as unfit:
                    raise self._unfit(name, each, before + unfit.row + 1, unfit.value) from None
            columns.append(column)
        for each in self.drawn:
            values = [
                each.get_db_prep_save(each.get_default(), self.connection)
                for _ in range(chunk.num_rows)
            ]
            zone = self.connection.timezone or datetime.UTC
            columns.append(arrow_column(each.db_type(self.connection), values, zone))
        if not columns:  # a table of no columns would have no rows either
            columns.append(pyarrow.nulls(chunk.num_rows))
        return pyarrow.table({f"c{at}": column for at, column in enumerate(columns)})

    def _refuse_null(self, column: Any, name: str, before: int) -> None:
        if column.null_count:
            row = before + fitting.first_null(column) + 1
            raise UnfitRows(
                f"Row {row} has no value in the column {name!r}, and {self.model._meta.label} "
                f"wants one. Nothing was loaded.",
                name,
                row,
            )

    def _unfit(self, name: str, field: Field[Any, Any], row: int, value: Any) -> UnfitRows:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
        return UnfitRows(
            f"Row {row} has {shown} in the column {name!r}, which {self.model._meta.label}."
            f"{field.name} cannot hold as {field.db_type(self.connection)} without a loss. "
            f"Nothing was loaded. Correct the row, or cast the column as you mean it.",
            name,
            row,
        )

    def _fields(self) -> list[Field[Any, Any]]:
        return [
            *(each for _, each in self.given),
            *self.drawn,
            *(each for each, _ in self.made),
            *(each for each, _ in self.expressions),
        ]

    def _sql(self) -> str:
        quote = self.connection.ops.quote_name
        kinds = [each.db_type(self.connection) for each in self._fields()]
        incoming = len(self.given) + len(self.drawn)
        values = [f"CAST(c{at} AS {kinds[at]})" for at in range(incoming)]
        values += [f"CAST(${at + 1} AS {kinds[incoming + at]})" for at in range(len(self.made))]
        values += [sql for _, sql in self.expressions]
        columns = ", ".join(quote(each.column) for each in self._fields())
        table = quote(self.model._meta.db_table)
        return f"INSERT INTO {table} ({columns}) SELECT {', '.join(values)} FROM {INCOMING}"

    def _params(self) -> list[Any]:
        return [value for _, value in self.made]

    def _name_unfit(self, table: pyarrow.Table, before: int) -> None:
        """Raise UnfitRows for the value DuckDB could not cast: of a UUID, JSON or nested type."""
        with closing(self.connection.connection.sibling()) as apart:
            for at, (name, each) in enumerate(self.given):
                kind = each.db_type(self.connection)
                found = apart.execute(
                    f"SELECT row, value FROM (SELECT row_number() OVER () AS row, c{at} AS value "
                    f"FROM {INCOMING}) WHERE value IS NOT NULL AND TRY_CAST(value AS {kind}) "
                    f"IS NULL ORDER BY row LIMIT 1",
                    arrow={INCOMING: table.select([f"c{at}"])},
                ).fetchone()
                if found is not None:
                    raise self._unfit(name, each, before + found[0], found[1]) from None


def _plan(model: type[Model], connection: Any, rows: Rows, ignore_extra: bool) -> _Load:
    """Match columns and fields. Raises UnfitRows."""
    load = _Load(connection, model)
    fields: dict[str, Field[Any, Any]] = {}
    loadable = [
        each
        for each in model._meta.local_concrete_fields
        if not each.generated and each.column is not None
    ]
    for each in loadable:
        for name in (each.column, each.attname, each.name):
            fields[str(name)] = each
    label, names = model._meta.label, rows.schema.names
    given: dict[Field[Any, Any], str] = {}
    for name in names:
        each_field = fields.get(name)
        if each_field is None and not ignore_extra:
            raise UnfitRows(
                f"The data has a column {name!r}, which {label} does not have. Its fields are: "
                f"{', '.join(each.name for each in loadable)}. Rename the column, or pass "
                f"ignore_extra=True.",
                name,
            )
        if each_field is None:
            continue
        if each_field in given or names.count(name) > 1:
            raise UnfitRows(
                f"The data has two columns for {label}.{each_field.name}: "
                f"{given.get(each_field, name)!r} and {name!r}. Leave one out.",
                name,
            )
        given[each_field] = name
    load.given = [(name, each) for each, name in given.items()]
    for each in loadable:
        if each not in given:
            _plan_missing(load, each, names)
    return load


def _plan_missing(load: _Load, field: Field[Any, Any], names: Sequence[str]) -> None:
    """Note where the values of `field` come from, which the data does not have."""
    now = getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False)
    if now or field.default is timezone.now:
        moment = timezone.now() if now else field.get_default()
        load.made.append((field, field.get_db_prep_save(field.to_python(moment), load.connection)))
    elif field.has_db_default() or isinstance(field, AutoField):
        return  # the table's own default
    elif field.default is uuid.uuid4:
        load.expressions.append((field, "uuid()"))
    elif field.has_default() and callable(field.default) and field.default not in (list, dict):
        load.drawn.append(field)
    elif field.has_default():
        load.made.append((field, field.get_db_prep_save(field.get_default(), load.connection)))
    elif field.null:
        return
    else:
        raise UnfitRows(
            f"The data has no column for {load.model._meta.label}.{field.name}, which has no "
            f"default. Its columns are: {', '.join(names)}. Add one called {field.name!r}.",
            field.name,
        )


def _chunks(batches: Iterable[Any], schema: pyarrow.Schema) -> Iterator[pyarrow.Table]:
    """Yield tables of about CHUNK_ROWS rows; one that is whole already stays whole."""
    held: list[Any] = []
    count = 0
    for batch in batches:
        if isinstance(batch, pyarrow.Table):
            yield batch
            continue
        held.append(batch)
        count += batch.num_rows
        if count >= CHUNK_ROWS:
            yield pyarrow.Table.from_batches(held, schema)
            held, count = [], 0
    if count:
        yield pyarrow.Table.from_batches(held, schema)
