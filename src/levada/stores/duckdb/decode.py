"""
Row images to typed rows, inside DuckDB: SQL text made from a `TableSpec`, no connection.

`from_json_strict` with a typed structure decodes integers, decimals of any
number of digits, dates and so on exactly, and raises for a missing column or a
value it cannot cast. What it casts too kindly (3.7 to the integer 4, 12.345 to
12.35, "+02:00" ignored) is found before by one regular expression a table,
`noncanonical`, that matches whatever departs from the canonical forms of
`levada.tables`. SQLite stores such values happily, so this happens.

Decoding here costs 1.5 µs an event of ten columns, 0.5 µs for its key and
0.8 µs for the expression (DuckDB 2.0.0; parsing in Python took 9.9 µs).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from levada.errors import StoreError
from levada.tables import ColumnSpec, TableSpec

DataTypes = Mapping[str, Any]
"""As in a Django backend: an internal type to a template, or to what makes one."""

MAX_DIGITS = 38
"""The most digits a DECIMAL of DuckDB holds."""

_STRUCTURE = {"text": "VARCHAR", "binary": "VARCHAR", "json": "VARCHAR", "duration": "BIGINT"}
"""The kinds that are read as another type first and converted by `_VALUE`."""

_VALUE = {"binary": "unhex(substr({}, 3))", "duration": "to_microseconds({})"}

_UTC = r'[-+](?:[^0"]|0[^0"]|00[^:0"]|000[^0"]|00:[^0"]|00:0[^0"])'
"""An offset other than +00:00, +0000 or +00."""

_NONCANONICAL = {
    "integer": r"-?\d+[.eE]|[^-0-9n\s]",
    "duration": r"-?\d+[.eE]|[^-0-9n\s]",
    "boolean": r"[^tfn\s]",
    "float": r'[^-0-9"n\s]|"[^NI-]',
    "decimal": r"-?\d+\.\d{%(places)d}\d|-?[0-9.]+[eE]|[^-0-9n\s]",
    "text": r'[^"n\s]',
    "json": r'[^"n\s]',
    "uuid": r'[^"n\s]',
    "binary": r'[^"n\s]|"[^\\]|"\\\\[^x]',
    "date": r'[^"n\s]|"[^"]{0,9}[^-0-9"]|"[^"]{11}',
    "time": r'[^"n\s]|"[^"]{0,14}[^:.0-9"]|"[^"]{16}',
    "timestamp": (
        r'[^"n\s]|"[^"]{0,9}[^-0-9"]|"[^"]{10}[^T "]'
        rf'|"[^"]{{11}}[^"]*(?:{_UTC}|[^-+:.0-9Z"]|\.\d{{7}})'
    ),
}
"""
What may not follow `"column":` in an image, by kind, in the dialect of RE2.

Quotes inside a text are escaped, so `"column"` before a colon is a name.
"""


def quote(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string literal."""
    return "'" + text.replace("'", "''") + "'"


def column_type(column: ColumnSpec, data_types: DataTypes) -> str:
    """
    Return the DuckDB type of `column`, as the backend's `data_types` have it.

    Raises StoreError for a decimal of more digits than DuckDB holds.
    """
    if column.kind == "decimal" and (column.max_digits or 0) > MAX_DIGITS:
        raise StoreError(
            f"Column {column.name!r} has {column.max_digits} digits, DuckDB holds {MAX_DIGITS}. "
            f"Lower max_digits or exclude the field in LEVADA['REPLICATE']."
        )
    parameters = {
        "max_length": column.max_length,
        "max_digits": column.max_digits,
        "decimal_places": column.decimal_places,
    }
    declared = data_types[column.internal_type]
    return declared(parameters) if callable(declared) else declared % parameters


def noncanonical(column: ColumnSpec) -> str:
    """Return the expression that matches an image in which `column` is not in canonical form."""
    name = re.escape(json.dumps(column.name, ensure_ascii=False))
    pattern = _NONCANONICAL[column.kind]
    if column.kind == "decimal":
        pattern = pattern % {"places": column.decimal_places or 0}
        if not column.decimal_places:
            pattern = r"-?\d+[.eE]|[^-0-9n\s]"
    return rf"{name}\s*:\s*(?:{pattern})"


@lru_cache(maxsize=1_000)
def any_noncanonical(spec: TableSpec) -> str:
    """Return one expression that matches an image with any column not in canonical form."""
    return "|".join(noncanonical(column) for column in spec.columns)


def rows_sql(spec: TableSpec, data_types: DataTypes, images: str = "image") -> str:
    """
    Return a SELECT that decodes column `image` of the relation `changed` into typed rows.

    One output column for each of `spec`, of the table's own type and in its
    order. A null image (a deletion, or one scrubbed by `forget`) gives no row.
    """
    structure = literal(
        json.dumps(
            {
                column.name: _STRUCTURE.get(column.kind) or column_type(column, data_types)
                for column in spec.columns
            },
            ensure_ascii=False,
        )
    )
    values = ", ".join(
        f"{_value(column)}::{column_type(column, data_types)} AS {quote(column.name)}"
        for column in spec.columns
    )
    return (
        f"SELECT {values} FROM (SELECT from_json_strict({images}, {structure}) AS decoded "
        f"FROM changed WHERE {images} IS NOT NULL)"
    )


def _value(column: ColumnSpec) -> str:
    field = f"struct_extract(decoded, {literal(column.name)})"
    return _VALUE.get(column.kind, "{}").format(field)


def keys_sql(spec: TableSpec, data_types: DataTypes, beside: str = "") -> str:
    """
    Return a SELECT that decodes column `key` of `changed` into typed columns k0, k1, ….

    beside: another column of `changed`, given as it is after the keys.
    """
    columns = [spec.column(name) for name in spec.key]
    rest = f", {quote(beside)}" if beside else ""
    if len(columns) == 1:
        (column,) = columns
        typed = _STRUCTURE.get(column.kind) or column_type(column, data_types)
        element = f"from_json_strict(key, {literal(json.dumps([typed]))})[1]"
        return f"SELECT {_key_value(column, element, data_types)} AS k0{rest} FROM changed"
    values = []
    for index, column in enumerate(columns):
        typed = _STRUCTURE.get(column.kind) or column_type(column, data_types)
        element = f"from_json_strict(json_extract(key, '$[{index}]'), {literal(json.dumps(typed))})"
        values.append(f"{_key_value(column, element, data_types)} AS k{index}")
    return f"SELECT {', '.join(values)}{rest} FROM changed"


def _key_value(column: ColumnSpec, element: str, data_types: DataTypes) -> str:
    value = _VALUE.get(column.kind, "{}").format(element)
    return f"{value}::{column_type(column, data_types)}"


def create_sql(table: str, spec: TableSpec, data_types: DataTypes) -> str:
    """Return the CREATE TABLE of a replica table: the backend's types, no keys, no constraints."""
    columns = ", ".join(
        f"{quote(column.name)} {column_type(column, data_types)}" for column in spec.columns
    )
    return f"CREATE TABLE {quote(table)} ({columns})"


_NATIVE = {"binary": "unhex({})", "duration": "to_microseconds({}::BIGINT)"}


def native_sql(spec: TableSpec, data_types: DataTypes) -> str:
    """
    Return a SELECT that casts the relation `chunk`, rows read by column, to the table's types.

    Durations come as microseconds, binary as hexadecimal text, everything else
    as its own type or text in canonical form. A value that does not fit raises.
    """
    columns = ", ".join(
        f"CAST({_native(column)} AS {column_type(column, data_types)}) AS {quote(column.name)}"
        for column in spec.columns
    )
    return f"SELECT {columns} FROM chunk"


def tried_sql(spec: TableSpec, data_types: DataTypes) -> str:
    """As `native_sql`, but a value that does not fit is null and its row `levada_unreadable`."""
    tried = {
        column.name: f"TRY_CAST({_native(column)} AS {column_type(column, data_types)})"
        for column in spec.columns
    }
    columns = ", ".join(f"{cast} AS {quote(name)}" for name, cast in tried.items())
    unfit = " OR ".join(
        f"(chunk.{quote(name)} IS NOT NULL AND {cast} IS NULL)" for name, cast in tried.items()
    )
    return f"SELECT {columns}, {unfit} AS levada_unreadable FROM chunk"


def _native(column: ColumnSpec) -> str:
    return _NATIVE.get(column.kind, "{}").format(f"chunk.{quote(column.name)}")
