"""Arrow columns in the types of a table, without a loss, or the first value that has no place."""

from __future__ import annotations

from typing import Any

import pyarrow
from pyarrow import compute, types

_WIDE = 38


class Unfit(Exception):
    """A value has no place in the wanted type. row: counted from 0."""

    def __init__(self, row: int, value: Any) -> None:
        super().__init__(f"row {row}: {value!r}")
        self.row, self.value = row, value


def fit(column: Any, wanted: pyarrow.DataType, zone: str) -> Any:
    """
    Return `column` as `wanted`; it is the same memory where the types are the same.

    zone: of timestamps in the table, which have no zone there.
    Raises Unfit for a value that would change.
    """
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _same(column.type, wanted):
        return column
    if not len(column):
        return pyarrow.array([], wanted)
    try:
        return _cast(column, wanted, zone)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, pyarrow.ArrowTypeError):
        row = _first_unfit(column, wanted, zone)
        raise Unfit(row, column[row].as_py()) from None


def first_null(column: Any) -> int:
    """Return where the first null is, -1 where there is none."""
    return int(compute.index(column.is_null(), True).as_py())


def empty_for_null(column: Any) -> Any:
    """Return a column of text with '' for null."""
    return compute.fill_null(column, "") if types.is_string(column.type) else column


def _same(given: Any, wanted: Any) -> bool:
    """DuckDB reads each of Arrow's layouts of text and of binary as it is."""
    if _is_text(wanted):
        return _is_text(given)
    if types.is_binary(wanted):
        return bool(types.is_binary(given) or types.is_large_binary(given))
    return bool(given.equals(wanted))


def _is_text(kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _cast(column: Any, wanted: Any, zone: str) -> Any:
    given = column.type
    if _is_text(given):
        column = compute.utf8_trim_whitespace(column.cast(pyarrow.string()))
        return _parsed(column, wanted, zone)
    if types.is_null(given):
        return column.cast(wanted)
    if types.is_timestamp(wanted):
        return _moments(column, wanted, zone)
    if types.is_decimal(wanted):
        return _decimals(column, wanted)
    if types.is_date(wanted) and types.is_timestamp(given):
        return _checked(column, _moments(column, pyarrow.timestamp("us"), zone).cast(wanted))
    if types.is_boolean(wanted) and not types.is_boolean(given):
        return _checked(column, column.cast(wanted))
    if types.is_boolean(given) or (_is_text(wanted) and types.is_temporal(given)):
        raise pyarrow.ArrowInvalid("of another kind")
    return column.cast(wanted)


def _parsed(column: Any, wanted: Any, zone: str) -> Any:
    """Read text, as a CSV has it."""
    if types.is_timestamp(wanted):
        # A zone is either in all of the texts or in none.
        try:
            return _moments(column.cast(pyarrow.timestamp("us", "UTC")), wanted, zone)
        except pyarrow.ArrowInvalid:
            return column.cast(wanted)
    if types.is_time(wanted):
        moments = compute.binary_join_element_wise("1970-01-01 ", column, "")
        return moments.cast(pyarrow.timestamp("us")).cast(wanted)
    if types.is_duration(wanted) or types.is_binary(wanted):
        raise pyarrow.ArrowInvalid("text has no one form for it")
    if types.is_decimal(wanted):
        return column.cast(pyarrow.decimal256(76, 30)).cast(wanted)
    return column.cast(wanted)


def _moments(column: Any, wanted: Any, zone: str) -> Any:
    given = column.type
    if types.is_timestamp(given) and given.tz is not None:
        column = column.cast(pyarrow.timestamp("us", zone))
        return column.cast(wanted) if zone == "UTC" else compute.local_timestamp(column)
    if types.is_date(given) or types.is_timestamp(given):
        return column.cast(wanted)
    raise pyarrow.ArrowInvalid("no moment")


def _decimals(column: Any, wanted: Any) -> Any:
    given = column.type
    if types.is_floating(given):
        # 12.34 is no exact binary fraction, but the decimal that is written that way.
        return _checked(column, column.cast(wanted))
    if types.is_integer(given):
        column = column.cast(pyarrow.decimal128(_WIDE, 0))
        wide = pyarrow.decimal128(_WIDE, wanted.scale)
        return column.cast(wide).cast(wanted)
    return column.cast(wanted)


def _checked(column: Any, converted: Any) -> Any:
    """Return `converted` if going back gives `column` again. Raises ArrowInvalid."""
    if not compute.all(compute.equal(converted.cast(column.type), column)).as_py():
        # `all` of nothing but nulls is null.
        if column.null_count == len(column):
            return converted
        raise pyarrow.ArrowInvalid("a value would change")
    return converted


def _first_unfit(column: Any, wanted: Any, zone: str) -> int:
    """Return the row of the first value that cannot be cast, by halving."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _cast(column.slice(low, middle - low), wanted, zone)
            low = middle
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, pyarrow.ArrowTypeError):
            high = middle
    return low
