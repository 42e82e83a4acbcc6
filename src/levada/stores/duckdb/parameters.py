"""
Parameters: Django's `%s` and Python's values, as DuckDB takes them.

DuckDB knows `?`, `$1` and `$name`. Equal values share one `$n`, because
DuckDB compares a grouped and a selected expression by their text: with `?` in
both, `SELECT x || ? … GROUP BY x || ?` is refused.
"""

from __future__ import annotations

import datetime
import decimal
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.utils.functional import Promise

_PLACEHOLDER = re.compile(r"%(?:%|s|\((\w+)\)s)")
_NATIVE = frozenset(
    {
        type(None), bool, int, float, str, bytes, decimal.Decimal, uuid.UUID,
        datetime.date, datetime.time, datetime.timedelta,
    }
)  # fmt: skip
_QUOTED = re.compile(r'"(?:[^"]|"")+"')
_LARGEST = 2**128 - 1
_SMALLEST = -(2**127)


@dataclass(frozen=True)
class StatementTime:
    """
    The parameter of `Now()`: the time when its statement runs, in the time zone named.

    DuckDB's now() is the time when the transaction began. In DDL, where there
    are no parameters, it is that all the same.
    """

    zone: str

    def __str__(self) -> str:
        return literal(self)


def to_duckdb(sql: str, params: Any, zone: datetime.tzinfo) -> tuple[str, Any]:
    """
    Turn Django's SQL and parameters into DuckDB's.

    params: None leaves `sql` as it is, percent signs included; a sequence is
    for `%s`, a mapping for `%(name)s`. zone: of the timestamps in the
    database, into which aware datetimes are turned.
    Raises ValueError where the numbers differ.
    """
    if params is None:
        return sql, None
    if isinstance(params, Mapping):
        params = dict(zip(params, _timed(list(params.values()), zone), strict=True))
        return _named(sql), {name: adapt(value, zone) for name, value in params.items()}
    values = [adapt(value, zone) for value in _timed(params, zone)]
    if not values:
        return _numbered(sql, ()), None
    if "GROUP BY" in sql or "DISTINCT ON" in sql:
        numbers, values = _share(values)
    else:
        numbers = tuple(range(1, len(values) + 1))
    return _numbered(sql, numbers), values


def _timed(values: Sequence[Any], zone: datetime.tzinfo) -> Sequence[Any]:
    """Return `values` with one time in place of every StatementTime."""
    if StatementTime not in map(type, values):
        return values
    now = datetime.datetime.now(zone)
    return [now if type(value) is StatementTime else value for value in values]


def adapt(value: Any, zone: datetime.tzinfo) -> Any:
    """Return `value` as a type DuckDB binds exactly; an aware datetime becomes naive in `zone`."""
    kind = type(value)
    if kind is int:
        return value if _SMALLEST <= value <= _LARGEST else float(value)
    if kind in _NATIVE:
        return value
    if isinstance(value, datetime.datetime):
        return value if value.tzinfo is None else value.astimezone(zone).replace(tzinfo=None)
    if isinstance(value, datetime.time):
        return value.replace(tzinfo=None)
    if isinstance(value, (str, Promise)):
        return str.__str__(value) if isinstance(value, str) else str(value)
    if isinstance(value, (memoryview, bytearray)):
        return bytes(value)
    return value


def literal(value: Any) -> str:
    """Write a value as SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, (int, float, decimal.Decimal)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "'{}'::BLOB".format("".join(f"\\x{byte:02X}" for byte in bytes(value)))
    if isinstance(value, datetime.datetime):
        kind = "TIMESTAMP" if value.tzinfo is None else "TIMESTAMPTZ"
        return f"{kind} '{value.isoformat(sep=' ')}'"
    if isinstance(value, datetime.date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, datetime.time):
        return f"TIME '{value.isoformat()}'"
    if isinstance(value, datetime.timedelta):
        micros = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
        return f"to_microseconds({micros})"
    if isinstance(value, uuid.UUID):
        return f"'{value}'::UUID"
    if isinstance(value, StatementTime):
        return f"timezone({literal(value.zone)}, now())"
    if isinstance(value, (list, tuple)):
        return "[{}]".format(", ".join(map(literal, value)))
    if isinstance(value, dict):
        return _dict_literal(value)
    return "'{}'".format(str(value).replace("'", "''"))


def _dict_literal(value: dict[str, Any]) -> str:
    """Write a struct, or a map where the driver would take the dict for one."""
    if value.keys() == {"key", "value"} and all(isinstance(v, list) for v in value.values()):
        return f"map({literal(value['key'])}, {literal(value['value'])})"
    return "{{{}}}".format(", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()))


def unquoted(name: str) -> str:
    """Return a name as the catalog has it: Django lets a db_table be given with its quotes."""
    return name[1:-1].replace('""', '"') if is_quoted(name) else name


def is_quoted(name: str) -> bool:
    """
    Say whether `name` is one name in quotes, as Django lets a db_table be given.

    `"a"; DROP TABLE b; SELECT "c"` begins and ends with quotes, too, and is none.
    """
    return _QUOTED.fullmatch(name) is not None


def _share(values: Sequence[Any]) -> tuple[tuple[int, ...], list[Any]]:
    """Number equal values of one type alike."""
    seen: dict[Any, int] = {}
    numbers, kept = [], []
    for value in values:
        key: tuple[type, Any] | None
        try:
            key = (type(value), str(value) if isinstance(value, decimal.Decimal) else value)
            number = seen.get(key)
        except TypeError:  # a list or dict has no hash
            key = number = None
        if number is None:
            kept.append(value)
            number = len(kept)
            if key is not None:
                seen[key] = number
        numbers.append(number)
    return tuple(numbers), kept


@lru_cache(maxsize=512)
def _numbered(sql: str, numbers: tuple[int, ...]) -> str:
    following = iter(numbers)

    def replace(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        try:
            return f"${next(following)}"
        except StopIteration:
            raise ValueError("not enough parameters for the placeholders in the SQL") from None

    converted = _PLACEHOLDER.sub(replace, sql)
    if next(following, None) is not None:
        raise ValueError("more parameters than placeholders in the SQL")
    return converted


@lru_cache(maxsize=512)
def _named(sql: str) -> str:
    return _PLACEHOLDER.sub(lambda match: "%" if match[0] == "%%" else f"${match[1]}", sql)
