"""Python values as Arrow columns of DuckDB's types."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Any

from .parameters import adapt

_DECIMAL = re.compile(r"DECIMAL\((\d+), ?(\d+)\)")


class Unsuitable(Exception):
    """These values cannot travel as one typed column; send them as parameters."""


def arrow_column(db_type: str | None, values: Sequence[Any], zone: datetime.tzinfo) -> Any:
    """
    Return `values` as the Arrow array that DuckDB stores as `db_type`.

    Raises Unsuitable for a type or value that only a parameter can carry.
    """
    import pyarrow

    kind = arrow_type(db_type or "")
    if kind is None:
        raise Unsuitable(db_type)
    plain = [adapt(value, zone) for value in values]
    if db_type == "UUID":
        plain = [None if value is None else str(value) for value in plain]
    try:
        return pyarrow.array(plain, type=kind)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise Unsuitable(str(error)) from error


def arrow_type(db_type: str) -> Any:
    """Return the Arrow type of DuckDB's `db_type`, None where only DuckDB can make values of it."""
    import pyarrow

    if db_type.endswith("[]"):
        item = None if db_type.startswith("UUID") else arrow_type(db_type[:-2])
        return None if item is None else pyarrow.list_(item)
    decimal = _DECIMAL.fullmatch(db_type)
    if decimal:
        return pyarrow.decimal128(int(decimal[1]), int(decimal[2]))
    factory = {
        "SMALLINT": pyarrow.int16,
        "INTEGER": pyarrow.int32,
        "BIGINT": pyarrow.int64,
        "BOOLEAN": pyarrow.bool_,
        "DOUBLE": pyarrow.float64,
        "DATE": pyarrow.date32,
        "BLOB": pyarrow.binary,
        "JSON": pyarrow.string,
        "UUID": pyarrow.string,
        "VARCHAR": pyarrow.string,
    }.get(db_type.partition("(")[0])
    if factory is not None:
        return factory()
    return {
        "TIMESTAMP": pyarrow.timestamp("us"),
        "TIME": pyarrow.time64("us"),
        "INTERVAL": pyarrow.duration("us"),
    }.get(db_type)
