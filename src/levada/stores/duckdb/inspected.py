"""Django's fields for DuckDB's types, as `inspectdb` writes them."""

from __future__ import annotations

import re

from .ddl import listed
from .parameters import unquoted

FIELDS = {
    "BIGINT": "BigIntegerField",
    "BLOB": "BinaryField",
    "BOOLEAN": "BooleanField",
    "DATE": "DateField",
    "DOUBLE": "FloatField",
    "FLOAT": "FloatField",
    "HUGEINT": "BigIntegerField",
    "INTEGER": "IntegerField",
    "INTERVAL": "DurationField",
    "JSON": "JSONField",
    "SMALLINT": "SmallIntegerField",
    "TIME": "TimeField",
    "TIMESTAMP": "DateTimeField",
    "TIMESTAMP WITH TIME ZONE": "DateTimeField",
    "TIMESTAMP_MS": "DateTimeField",
    "TIMESTAMP_NS": "DateTimeField",
    "TIMESTAMP_S": "DateTimeField",
    "TINYINT": "SmallIntegerField",
    "UBIGINT": "PositiveBigIntegerField",
    "UHUGEINT": "PositiveBigIntegerField",
    "UINTEGER": "PositiveBigIntegerField",
    "USMALLINT": "PositiveIntegerField",
    "UTINYINT": "PositiveSmallIntegerField",
    "UUID": "UUIDField",
    "VARCHAR": "TextField",
}
"""The types that need no argument."""

DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_NAMED = re.compile(r'("(?:[^"]|"")*"|\w+)\s+(.*)', re.DOTALL)
_NESTED = "levada.stores.duckdb.fields"


class Called(str):
    """
    A field's class with its first argument and an open parenthesis.

    `inspectdb` adds "(" to the name of a class, then more arguments.
    """

    __slots__ = ()

    def __add__(self, other: str) -> str:
        return str(self) if other == "(" else str(self) + other


def field_name(data_type: str) -> str:
    """Return the class of a column's field for `inspectdb`. Raises KeyError where there is none."""
    if DECIMAL.fullmatch(data_type):
        return "DecimalField"
    if data_type in FIELDS:
        return FIELDS[data_type]
    return Called(field_code(data_type).removesuffix(")"))


def field_code(data_type: str) -> str:
    """Return a field as Python code. Raises KeyError for a type that has none."""
    if data_type.endswith("[]"):
        return f"{_NESTED}.ListField({field_code(data_type[:-2])})"
    if data_type.startswith("STRUCT("):
        parts = (_NAMED.fullmatch(part) for part in listed(data_type))
        keys = [f"{unquoted(part[1])!r}: {field_code(part[2])}" for part in parts if part]
        return f"{_NESTED}.StructField({{{', '.join(keys)}}})"
    if data_type.startswith("MAP("):
        return f"{_NESTED}.MapField({', '.join(map(field_code, listed(data_type)))})"
    if data_type.startswith("ENUM("):
        values = [part[1:-1].replace("''", "'") for part in listed(data_type)]
        choices = [(value, value) for value in values]
        return f"models.CharField(max_length={max(map(len, values))}, choices={choices!r})"
    if match := DECIMAL.fullmatch(data_type):
        return f"models.DecimalField(max_digits={match[1]}, decimal_places={match[2]})"
    return f"models.{FIELDS[data_type]}()"
