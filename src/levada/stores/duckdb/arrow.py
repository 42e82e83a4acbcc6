"""
Querysets as Arrow: whole columns leave DuckDB without a Python object for each value.

    from levada.stores.duckdb.arrow import to_arrow

    table = to_arrow(Order.objects.using("analytics").filter(country="PT"))

Any queryset: of models, `values()`, `values_list()`, annotated, sliced,
combined. The columns have the names of `values()`. Types are DuckDB's own,
apart from these, which follow the model's fields:

    DateTimeField   timestamp[us, tz=UTC], without a zone if USE_TZ is False
    DurationField   duration[us]
    IntegerField    int64 at most, also for sums; too large a sum is a DataError
    UUID, JSON      text
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.exceptions import EmptyResultSet
from django.db import DataError, connections
from django.db.models import (
    DateField,
    DateTimeField,
    DurationField,
    Field,
    FloatField,
    IntegerField,
    QuerySet,
)
from django.db.models.expressions import ColPairs

from .base import DjangoCursor
from .connection import Connection
from .expressions import plain_field, refuse_elsewhere
from .parameters import to_duckdb
from .wire import BATCH_ROWS

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["to_arrow", "to_arrow_batches", "to_pandas", "to_parquet", "to_polars"]

ROW_GROUP_ROWS = 122_880
"""Rows of one row group of a Parquet file: what DuckDB writes by itself."""


def to_arrow(queryset: QuerySet[Any, Any]) -> pyarrow.Table:
    """
    Run `queryset` and return its rows as an Arrow table.

    Raises NotSupportedError for another database than DuckDB.
    """
    selection = _Selection.of(queryset, "to_arrow()")
    table = selection.run(_TableCursor)
    return selection.typed_table(table)


def to_arrow_batches(
    queryset: QuerySet[Any, Any], batch_rows: int = BATCH_ROWS
) -> pyarrow.RecordBatchReader:
    """
    Run `queryset` and return a reader of its rows, `batch_rows` of them in memory at a time.

    The rows are those of one moment, but only the same connection's next
    statement or the reader's end lets go of the query: read it to its end.
    """
    import pyarrow

    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, and is {batch_rows}.")
    selection = _Selection.of(queryset, "to_arrow_batches()")
    stream = selection.run(_StreamCursor, batch_rows)
    types = selection.types(stream.schema)

    def batches() -> Iterator[pyarrow.RecordBatch]:
        try:
            while True:
                with selection.connection.wrap_database_errors:
                    batch = next(stream, None)
                if batch is None:
                    return
                yield selection.typed_batch(batch, types)
        finally:
            stream.close()  # also when a reader is dropped before its end

    return pyarrow.RecordBatchReader.from_batches(types, batches())


def to_polars(queryset: QuerySet[Any, Any]) -> polars.DataFrame:
    """Run `queryset` and return its rows as a Polars frame, which shares Arrow's memory."""
    import polars

    frame = polars.from_arrow(to_arrow(queryset))
    assert isinstance(frame, polars.DataFrame)
    return frame


def to_pandas(queryset: QuerySet[Any, Any], *, arrow_types: bool = True) -> pandas.DataFrame:
    """
    Run `queryset` and return its rows as a pandas frame.

    arrow_types: keep Arrow's types and memory; otherwise pandas' classic ones,
        which have Python objects for decimals, dates and text.
    """
    import pandas

    table = to_arrow(queryset)
    return table.to_pandas(types_mapper=pandas.ArrowDtype if arrow_types else None)


def to_parquet(
    queryset: QuerySet[Any, Any],
    path: str | os.PathLike[str],
    *,
    partition_by: Sequence[str] = (),
    compression: str = "zstd",
    overwrite: bool = False,
) -> int:
    """
    Run `queryset`, write its rows to a Parquet file and return how many there are.

    path: of the file, which appears when it is complete, and not after a failure; a folder with
        `partition_by`, whose columns then become folders (`country=PT/…`).
        Both may be addresses of object storage (`s3://…`), by pyarrow. This
        process writes, whichever has the database open.
    Raises FileExistsError where something is there already, unless `overwrite`.
    """
    from pyarrow import fs

    text = os.fspath(path)
    if "://" in text:
        filesystem, target = fs.FileSystem.from_uri(text)
    else:
        filesystem, target = fs.LocalFileSystem(), os.path.abspath(text)
    if not overwrite and _is_there(filesystem, target):
        raise FileExistsError(f"{text} exists already. Pass overwrite=True to replace it.")
    reader = to_arrow_batches(queryset, ROW_GROUP_ROWS)
    if partition_by:
        return _write_folder(reader, filesystem, target, partition_by, compression)
    return _write_file(reader, filesystem, target, compression)


def _is_there(filesystem: Any, target: str) -> bool:
    """Say whether `target` is a file, or a folder with anything in it."""
    from pyarrow import fs

    found = filesystem.get_file_info(target)
    if found.type != fs.FileType.Directory:
        return bool(found.type != fs.FileType.NotFound)
    return bool(filesystem.get_file_info(fs.FileSelector(target)))


def _write_file(
    reader: pyarrow.RecordBatchReader, filesystem: Any, target: str, compression: str
) -> int:
    """Write beside `target`, then rename: nobody sees half a file. An object has no halves."""
    import pyarrow.parquet
    from pyarrow import fs

    folder, _, name = target.rpartition("/")
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    unfinished = f"{folder}/.{name}.{os.getpid()}.unfinished" if is_local else target
    rows = 0
    try:
        with pyarrow.parquet.ParquetWriter(
            unfinished, reader.schema, filesystem=filesystem, compression=compression
        ) as writer:
            for batch in reader:
                rows += batch.num_rows
                writer.write_batch(batch)
        if is_local:
            filesystem.move(unfinished, target)
    except BaseException:
        with suppress(OSError):
            filesystem.delete_file(unfinished)
        raise
    return rows


def _write_folder(
    reader: pyarrow.RecordBatchReader,
    filesystem: Any,
    target: str,
    partition_by: Sequence[str],
    compression: str,
) -> int:
    import pyarrow
    import pyarrow.dataset

    missing = [name for name in partition_by if name not in reader.schema.names]
    if missing:
        raise ValueError(
            f"The rows have no column {missing[0]!r} to partition by. "
            f"Their columns are: {', '.join(reader.schema.names)}."
        )
    rows = 0

    def counted() -> Iterator[pyarrow.RecordBatch]:
        nonlocal rows
        for batch in reader:
            rows += batch.num_rows
            yield batch

    parquet = pyarrow.dataset.ParquetFileFormat()
    keys = pyarrow.schema([reader.schema.field(name) for name in partition_by])
    pyarrow.dataset.write_dataset(
        pyarrow.RecordBatchReader.from_batches(reader.schema, counted()),
        target,
        filesystem=filesystem,
        format=parquet,
        file_options=parquet.make_write_options(compression=compression),
        partitioning=pyarrow.dataset.partitioning(keys, flavor="hive"),
        existing_data_behavior="delete_matching",
    )
    return rows


class _ArrowCursor(DjangoCursor):
    """A cursor whose statements end in Arrow; Django's wrappers time and guard it as any other."""

    result: Any = None


class _TableCursor(_ArrowCursor):
    def execute(self, sql: str, params: Any = None, *, arrow: Any = None) -> _TableCursor:
        self.last_sql = sql
        self.result = self.connection.fetch_arrow(*to_duckdb(sql, params, self._zone))
        return self


class _StreamCursor(_ArrowCursor):
    def __init__(self, connection: Connection, zone: datetime.tzinfo, batch_rows: int) -> None:
        super().__init__(connection, zone)
        self._batch_rows = batch_rows

    def execute(self, sql: str, params: Any = None, *, arrow: Any = None) -> _StreamCursor:
        self.last_sql = sql
        sql, params = to_duckdb(sql, params, self._zone)
        self.result = self.connection.stream_arrow(sql, params, batch_rows=self._batch_rows)
        return self

    def close(self) -> None:
        """Leave the stream to its reader."""


class _Selection(NamedTuple):
    """A queryset as SQL. names, fields: of each column; a field is None where none is known."""

    connection: Any
    sql: str
    params: Sequence[Any]
    names: list[str]
    fields: list[Field[Any, Any] | None]

    @classmethod
    def of(cls, queryset: QuerySet[Any, Any], what: str) -> _Selection:
        """Compile `queryset`. Raises NotSupportedError, TypeError."""
        if not isinstance(queryset, QuerySet):
            raise TypeError(
                f"{what} takes a queryset, not a {type(queryset).__name__}. For SQL of your own "
                f"there is connections['analytics'].connection.fetch_arrow(sql, params)."
            )
        connection = connections[queryset.db]
        refuse_elsewhere(what, connection)
        query = _as_values(queryset).query
        # A queryset known to be empty is asked all the same: DuckDB knows its types.
        compiler = query.get_compiler(connection=connection, elide_empty=False)
        try:
            sql, params = compiler.as_sql()
        except EmptyResultSet:  # a combination of empty ones
            query = query.chain()
            query.combinator, query.combined_queries = None, ()
            query.set_empty()
            compiler = query.get_compiler(connection=connection, elide_empty=False)
            sql, params = compiler.as_sql()
        names, fields = [], []
        for name, expression in zip(_names(query), _expressions(compiler), strict=True):
            for each_name, each_field in _columns(name, expression):
                names.append(each_name)
                fields.append(each_field)
        return cls(connection, sql, params, names, fields)

    def run(self, cursor_class: type[_ArrowCursor], *arguments: Any) -> Any:
        """Run the statement on a cursor of `cursor_class` and return its result."""
        self.connection.ensure_connection()
        zone = self.connection.timezone or datetime.UTC
        cursor = cursor_class(self.connection.connection, zone, *arguments)
        with self.connection._prepare_cursor(cursor) as wrapped:
            wrapped.execute(self.sql, self.params)
        return cursor.result

    def typed_table(self, table: pyarrow.Table) -> pyarrow.Table:
        """Give DuckDB's table the names and types of the queryset."""
        import pyarrow

        types = self.types(table.schema)
        columns = [self._typed(table.column(at), types.field(at).type) for at in range(len(types))]
        return pyarrow.Table.from_arrays(columns, schema=types)

    def typed_batch(self, batch: pyarrow.RecordBatch, types: pyarrow.Schema) -> Any:
        """Give a batch of DuckDB's the names and types of the queryset."""
        import pyarrow

        columns = [self._typed(batch.column(at), types.field(at).type) for at in range(len(types))]
        return pyarrow.RecordBatch.from_arrays(columns, schema=types)

    def types(self, schema: pyarrow.Schema) -> pyarrow.Schema:
        """Return the queryset's schema; columns that only its order needs are dropped."""
        import pyarrow

        return pyarrow.schema(
            [
                (name, _type_of(field, schema.field(at).type))
                for at, (name, field) in enumerate(zip(self.names, self.fields, strict=True))
            ]
        )

    def _typed(self, column: Any, wanted: Any) -> Any:
        import pyarrow

        if column.type.equals(wanted):
            return column
        try:
            return _cast(column, wanted, self.connection.timezone_name)
        except pyarrow.ArrowInvalid as error:
            raise DataError(f"A column does not fit its field's type {wanted}: {error}") from error


def _as_values(queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
    """Return `queryset` with columns for rows, those of `only()` and `defer()` respected."""
    if queryset._fields is not None:  # type: ignore[attr-defined]
        return queryset
    query: Any = queryset.query
    names, are_deferred = query.deferred_loading
    if not names:
        return queryset.values()
    kept = [
        field.attname
        for field in queryset.model._meta.concrete_fields
        if (field.name in names or field.attname in names) is not are_deferred or field.primary_key
    ]
    return queryset.values(*query.extra_select, *kept, *query.annotation_select)


def _names(query: Any) -> list[str]:
    if query.selected:
        return list(query.selected)
    return [*query.extra_select, *query.values_select, *query.annotation_select]


def _expressions(compiler: Any) -> list[Any]:
    return [expression for expression, _, _ in compiler.select]


def _columns(name: str, expression: Any) -> Iterator[tuple[str, Field[Any, Any] | None]]:
    """Yield the columns of one selected expression: several for a composite key."""
    if isinstance(expression, ColPairs):
        yield from ((field.attname, field) for field in expression.sources)
        return
    field = getattr(expression, "_output_field_or_none", None)
    yield name, field and plain_field(field)


def _type_of(field: Field[Any, Any] | None, given: Any) -> Any:
    """Return the Arrow type for values of `field` that DuckDB gives as `given`."""
    import pyarrow

    if isinstance(field, DateTimeField):
        if pyarrow.types.is_timestamp(given) or pyarrow.types.is_date(given):
            return pyarrow.timestamp("us", "UTC" if settings.USE_TZ else None)
    elif isinstance(field, DateField):
        if pyarrow.types.is_timestamp(given):
            return pyarrow.date32()
    elif isinstance(field, DurationField):
        return pyarrow.duration("us")
    elif pyarrow.types.is_decimal(given):
        if isinstance(field, IntegerField):
            return pyarrow.int64()
        if isinstance(field, FloatField):
            return pyarrow.float64()
    return given


def _cast(column: Any, wanted: Any, zone: str) -> Any:
    """Cast without a loss; naive timestamps are in the connection's `zone`."""
    import pyarrow
    import pyarrow.compute as compute

    given = column.type
    if pyarrow.types.is_interval(given):
        return _durations(column)
    if pyarrow.types.is_date(given):
        column = column.cast(pyarrow.timestamp("us"))
        given = column.type
    if pyarrow.types.is_timestamp(given) and given.tz is None and wanted.tz is not None:
        if zone != "UTC":
            column = compute.assume_timezone(column, zone, ambiguous="earliest")
        return column.cast(wanted)
    return column.cast(wanted)


def _durations(column: Any) -> Any:
    """Turn Arrow's intervals of months, days and nanoseconds into microseconds."""
    import pyarrow
    import pyarrow.compute as compute

    if isinstance(column, pyarrow.ChunkedArray):
        chunks = [_durations(chunk) for chunk in column.chunks]
        return pyarrow.chunked_array(chunks, type=pyarrow.duration("us"))
    count, data = len(column), column.buffers()[1]
    end = column.offset + count
    if not count:
        return pyarrow.array([], pyarrow.duration("us"))
    # An interval is four bytes of months, four of days, eight of nanoseconds.
    words = pyarrow.Array.from_buffers(pyarrow.int32(), end * 4, [None, data])
    longs = pyarrow.Array.from_buffers(pyarrow.int64(), end * 2, [None, data])

    def part(values: Any, size: int, at: int) -> Any:
        grouped = pyarrow.FixedSizeListArray.from_arrays(values, size)
        return compute.list_element(grouped, at).slice(column.offset, count)

    months = compute.multiply(part(words, 4, 0).cast(pyarrow.int64()), 30)
    days = compute.add(months, part(words, 4, 1).cast(pyarrow.int64()))
    micros = compute.divide(part(longs, 2, 1), 1_000)
    total = compute.add(compute.multiply(days, 86_400_000_000), micros)
    return compute.if_else(column.is_valid(), total, None).cast(pyarrow.duration("us"))
