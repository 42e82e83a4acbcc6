"""
Rows of a source snapshot, read column by column as the database holds them.

Nothing here goes through the JSON images of the triggers, so that verify
compares a replica built from images with something independent of them.
The rows come as Arrow tables in the form that `stores.duckdb.decode.native_sql`
casts: durations as microseconds, binary as hexadecimal text, the rest typed or
as text. What a column cannot hold by its type (SQLite lets anything into any
column) raises `Unreadable`, never turns into another value.

SQLite: the driver's own values, type-checked by Arrow. PostgreSQL: COPY in
CSV, parsed by Arrow, because making Python objects of every value would take
most of the time.
"""

from __future__ import annotations

import decimal
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import pyarrow
from django.conf import settings as django_settings
from pyarrow import compute, csv

from levada.contracts import SourceSnapshot
from levada.tables import ColumnSpec, TableSpec

CHUNK_ROWS = 100_000
"""Rows read and handed on at once: tens of megabytes of ordinary rows."""

CHUNK_BYTES = 64 * 1024 * 1024
"""A chunk of PostgreSQL's text ends early beyond this."""

_DATE = r"\d{4}-\d{1,2}-\d{1,2}"
_TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?"
_TEXT_FORMS = {
    "date": rf"^{_DATE}$",
    "time": rf"^{_TIME}$",
    "timestamp": rf"^{_DATE}(?:[ T]{_TIME}(?:Z|[+-]00(?::?00)?)?)?$",
    "uuid": r"^[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$",
}
"""What text in a column of a kind may look like; the store's cast has the last word."""


class Unreadable(ValueError):
    """Column `column` holds a value that its type does not have."""

    def __init__(self, column: ColumnSpec, found: object) -> None:
        super().__init__(f"column {column.name!r} holds no {column.kind}: {found}")
        self.column = column.name


class TableReader:
    """
    Reads one table of a snapshot.

    `chunks()` gives lists of raw rows; `arrow()` types some of them, in the
    spec's column order, and raises Unreadable if a value does not fit. The
    two are apart so that a caller can narrow a bad chunk down to its rows.
    """

    def __init__(self, snapshot: SourceSnapshot, spec: TableSpec) -> None:
        self.snapshot = snapshot
        self.spec = spec

    def count(self) -> int:
        """Count the table's rows."""
        for rows in self.snapshot.chunks(f"SELECT count(*) FROM {_quote(self.spec.table)}"):
            return int(rows[0][0])
        return 0

    def chunks(
        self, key: Sequence[Any] | None = None, *, chunk_rows: int = CHUNK_ROWS
    ) -> Iterator[Sequence[Any]]:
        """
        Yield raw rows, all of them or those with the primary key `key`.

        key: values as an image's JSON key holds them.
        """
        raise NotImplementedError

    def arrow(self, rows: Sequence[Any]) -> pyarrow.Table:
        """Type raw rows. Raises Unreadable."""
        raise NotImplementedError

    def texts(self, row: Any) -> dict[str, str | None]:
        """Return one raw row's values as text by column, for a message."""
        raise NotImplementedError

    def key_text(self, row: Any) -> str:
        """Return one raw row's primary key as a JSON array of texts."""
        texts = self.texts(row)
        return json.dumps([texts[name] for name in self.spec.key], ensure_ascii=False)

    def _order(self) -> str:
        """Order by an integer key, which makes neighbours in the source neighbours in the store."""
        (name, *more) = self.spec.key
        whole = not more and self.spec.column(name).kind == "integer"
        return f" ORDER BY {_quote(name)}" if whole else ""


def open_reader(snapshot: SourceSnapshot, spec: TableSpec) -> TableReader:
    """Return the reader for the snapshot's vendor."""
    return (SQLiteReader if snapshot.vendor == "sqlite" else PostgreSQLReader)(snapshot, spec)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class SQLiteReader(TableReader):
    """Raw rows are tuples of the driver's values."""

    def chunks(
        self, key: Sequence[Any] | None = None, *, chunk_rows: int = CHUNK_ROWS
    ) -> Iterator[Sequence[Any]]:
        columns = ", ".join(map(self._expression, self.spec.columns))
        sql = f"SELECT {columns} FROM {_quote(self.spec.table)}"
        if key is None:
            yield from self.snapshot.chunks(sql + self._order(), chunk_rows=chunk_rows)
            return
        values = [
            _SQLITE_KEY.get(self.spec.column(name).kind, _itself)(value)
            for name, value in zip(self.spec.key, key, strict=True)
        ]
        same = " AND ".join(f"{_quote(name)} = ?" for name in self.spec.key)
        yield from self.snapshot.chunks(f"{sql} WHERE {same}", values)

    def _expression(self, column: ColumnSpec) -> str:
        # With the table's name: SQLite takes an unknown "name" alone for a text.
        name = f"{_quote(self.spec.table)}.{_quote(column.name)}"
        if column.kind == "binary":
            return f"CASE WHEN {name} IS NOT NULL THEN hex({name}) END"
        # The plus sign changes nothing, but an expression has no declared
        # type, by which Django's own connections would convert the value.
        return f"+{name}"

    def arrow(self, rows: Sequence[Any]) -> pyarrow.Table:
        columns = zip(*rows, strict=True)
        return pyarrow.table(
            {
                spec.name: _typed(spec, values)
                for spec, values in zip(self.spec.columns, columns, strict=True)
            }
        )

    def texts(self, row: Any) -> dict[str, str | None]:
        return {
            column.name: None if value is None else str(value)
            for column, value in zip(self.spec.columns, row, strict=True)
        }


def _itself(value: Any) -> Any:
    return value


_SQLITE_KEY: dict[str, Callable[[Any], Any]] = {
    "uuid": lambda text: text.replace("-", ""),
    "timestamp": lambda text: text.replace("T", " ").removesuffix("+00:00").removesuffix("Z"),
    "binary": lambda text: bytes.fromhex(text[2:]),
    "decimal": float,
    "float": float,
}
"""A key's value in an image to what Django stores in SQLite."""


def _typed(column: ColumnSpec, values: Sequence[Any]) -> pyarrow.Array:
    """Make an Arrow array of one SQLite column. Raises Unreadable."""
    try:
        array = _ARRAY_OF.get(column.kind, _text)(column, values)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise Unreadable(column, error) from error
    _check_form(column, array)
    return array


def _integers(column: ColumnSpec, values: Sequence[Any]) -> pyarrow.Array:
    return pyarrow.array(values, pyarrow.int64())


def _booleans(column: ColumnSpec, values: Sequence[Any]) -> pyarrow.Array:
    if set(values) - {0, 1, None}:
        raise ValueError(f"{(set(values) - {0, 1, None}).pop()!r}")
    return pyarrow.array(values, pyarrow.int8()).cast(pyarrow.bool_())


def _floats(column: ColumnSpec, values: Sequence[Any]) -> pyarrow.Array:
    return pyarrow.array(values, pyarrow.float64())


def _decimals(column: ColumnSpec, values: Sequence[Any]) -> pyarrow.Array:
    as_read = partial(_decimal, places=column.decimal_places or 0)
    return pyarrow.array(map(as_read, values), pyarrow.string())


def _text(column: ColumnSpec, values: Sequence[Any]) -> pyarrow.Array:
    array = pyarrow.array(values)
    if pyarrow.types.is_null(array.type):
        return array.cast(pyarrow.string())
    if not pyarrow.types.is_string(array.type):
        raise ValueError(f"it is of type {array.type}")
    return array


_ARRAY_OF: dict[str, Callable[[ColumnSpec, Sequence[Any]], pyarrow.Array]] = {
    "integer": _integers,
    "duration": _integers,
    "boolean": _booleans,
    "float": _floats,
    "decimal": _decimals,
}

_FIFTEEN_DIGITS = decimal.Context(prec=15)


@lru_cache(maxsize=200_000)  # prices repeat; a miss costs 2 µs, a hit 0.1
def _decimal(value: Any, places: int) -> str | None:
    """Read a decimal of SQLite, an integer or a double, as Django does: 15 digits, half-even."""
    if value is None:
        return None
    if type(value) is int:
        return str(value)
    if type(value) is not float:
        raise TypeError(f"{value!r}")
    exact = _FIFTEEN_DIGITS.create_decimal_from_float(value)
    if not exact.is_finite():
        raise ValueError(f"{value!r}")
    return format(exact.quantize(decimal.Decimal(1).scaleb(-places), context=_WIDE), "f")


_WIDE = decimal.Context(prec=400)
"""Room for any double with any number of places."""


def _check_form(column: ColumnSpec, array: pyarrow.Array) -> None:
    form = _TEXT_FORMS.get(column.kind)
    if form is None:
        return
    fits = compute.match_substring_regex(array, form)
    if compute.all(fits).as_py() is False:
        (wrong, *_) = array.filter(compute.invert(fits)).to_pylist()
        raise Unreadable(column, repr(wrong))


class PostgreSQLReader(TableReader):
    """Raw rows are lines of COPY's CSV, as bytes."""

    def chunks(
        self, key: Sequence[Any] | None = None, *, chunk_rows: int = CHUNK_ROWS
    ) -> Iterator[Sequence[Any]]:
        columns = ", ".join(map(self._expression, self.spec.columns))
        sql = f"SELECT {columns} FROM {_quote(self.spec.table)}"
        params: list[Any] = []
        if key is None:
            sql += self._order()
        else:
            sql += " WHERE " + " AND ".join(self._same(name) for name in self.spec.key)
            params = [str(value) for value in key]
        # What a session or a role may have set differently.
        self.snapshot.connection.execute("SET LOCAL datestyle = 'ISO, YMD'")
        self.snapshot.connection.execute("SET LOCAL extra_float_digits = 1")
        with self.snapshot.connection.cursor() as cursor:
            yield from self._copied(
                cursor, f"COPY ({sql}) TO STDOUT (FORMAT csv)", params, chunk_rows
            )

    def _copied(
        self, cursor: Any, sql: str, params: list[Any], chunk_rows: int
    ) -> Iterator[list[bytes]]:
        rows: list[bytes] = []
        size = 0
        with cursor.copy(sql, params or None) as copy:
            for row in copy:
                rows.append(bytes(row))
                size += len(row)
                if len(rows) >= chunk_rows or size >= CHUNK_BYTES:
                    yield rows
                    rows, size = [], 0
        if rows:
            yield rows

    def _expression(self, column: ColumnSpec) -> str:
        name = _quote(column.name)
        if column.kind == "timestamp":
            return f"{name} AT TIME ZONE {_zone()}"
        if column.kind == "duration":
            return f"(extract(epoch FROM {name}) * 1000000)::bigint"
        if column.kind == "binary":
            return f"encode({name}, 'hex')"
        return name

    def _same(self, name: str) -> str:
        if self.spec.column(name).kind == "duration":
            return f"{_quote(name)} = %s::bigint * interval '1 microsecond'"
        if self.spec.column(name).kind == "timestamp" and not django_settings.USE_TZ:
            return f"{_quote(name)} AT TIME ZONE {_zone()} = %s::timestamp"
        return f"{_quote(name)} = %s"

    def arrow(self, rows: Sequence[Any]) -> pyarrow.Table:
        text = b"".join(rows)
        names = [column.name for column in self.spec.columns]
        table = csv.read_csv(
            io.BytesIO(text),
            csv.ReadOptions(column_names=names, block_size=len(text) + 1, use_threads=False),
            csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        for column in self.spec.columns:
            _check_form(column, table[column.name].combine_chunks())
        return table

    def texts(self, row: Any) -> dict[str, str | None]:
        names = [column.name for column in self.spec.columns]
        return dict(zip(names, next(_csv_rows([row], len(names))), strict=True))


def _zone() -> str:
    """Write the zone of Django's datetimes: without USE_TZ the project's, as the triggers do."""
    zone = "UTC" if django_settings.USE_TZ else django_settings.TIME_ZONE
    return "'" + zone.replace("'", "''") + "'"


def _csv_rows(rows: Sequence[bytes], width: int) -> Iterator[list[str | None]]:
    names = [str(index) for index in range(width)]
    spec = TableSpec("", "", (), tuple(ColumnSpec(name, "text", "TextField") for name in names))
    table = PostgreSQLReader(None, spec).arrow(rows)  # type: ignore[arg-type]
    for each in table.to_pylist():
        yield list(each.values())
