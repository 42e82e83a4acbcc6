"""Which records a store cannot take, and why: asked only after a batch was refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
import pyarrow
from pyarrow import compute

from levada.tables import ColumnSpec, TableSpec

from . import decode
from .decode import quote
from .table_changes import TableChanges

SHOWN = 200
"""Characters of an image or message shown in a reason."""


def refused(connection: Any, changes: TableChanges, data_types: decode.DataTypes) -> dict[int, str]:
    """
    Return the reason for each of `changes` that does not decode, by offset; {} if all do.

    Bisects by decoding halves, so a batch of n with p poison records is
    decoded about p·log n times. Must not run inside a transaction, which the
    first refusal would abort.
    """
    rows = changes.arrow
    reasons: dict[int, str] = {}
    for column in changes.spec.columns:
        matches = compute.match_substring_regex(rows["image"], decode.noncanonical(column))
        for row in rows.filter(compute.fill_null(matches, False)).to_pylist():
            reasons.setdefault(row["offset"], _not_canonical(column, row["image"]))
    keyless = rows.filter(compute.is_null(rows["key"]))
    for row in keyless.to_pylist():
        reasons[row["offset"]] = "the record has no key"
    known = pyarrow.array(list(reasons), pyarrow.int64())
    rest = rows.filter(compute.invert(compute.is_in(rows["offset"], known)))
    return reasons | _bisect(connection, changes.spec, rest, data_types)


def _not_canonical(column: ColumnSpec, image: str) -> str:
    return f"column {column.name!r} holds no {column.kind} in {image[:SHOWN]}"


def _bisect(
    connection: Any, spec: TableSpec, rows: pyarrow.Table, data_types: decode.DataTypes
) -> dict[int, str]:
    error = _error(connection, spec, rows, data_types) if len(rows) else None
    if error is None:
        return {}
    if len(rows) == 1:
        column = _culprit(connection, spec, rows, data_types)
        return {rows["offset"][0].as_py(): f"{column}: {error[:SHOWN]}" if column else error}
    half = len(rows) // 2
    return _bisect(connection, spec, rows.slice(0, half), data_types) | _bisect(
        connection, spec, rows.slice(half), data_types
    )


def _culprit(
    connection: Any, spec: TableSpec, row: pyarrow.Table, data_types: decode.DataTypes
) -> str:
    """Name the first column of one row that does not decode, '' if it is none alone."""
    for column in spec.columns:
        alone = replace(spec, columns=(column,), key=())
        if _error(connection, alone, row, data_types) is not None:
            return f"column {column.name!r} takes no such {column.kind}"
    return ""


def _error(
    connection: Any, spec: TableSpec, rows: pyarrow.Table, data_types: decode.DataTypes
) -> str | None:
    """Decode `rows` and return DuckDB's complaint, None if it has none."""
    # hash() of every column, or DuckDB would not decode what nobody reads.
    columns = ", ".join(quote(column.name) for column in spec.columns)
    checks = [f"SELECT count(hash({columns})) FROM ({decode.rows_sql(spec, data_types)})"]
    if spec.key:
        keys = ", ".join(f"k{index}" for index in range(len(spec.key)))
        checks.append(f"SELECT count(hash({keys})) FROM ({decode.keys_sql(spec, data_types)})")
    for sql in checks:
        try:
            connection.execute(sql, arrow={"changed": rows}).fetchall()
        except duckdb.Error as error:
            return str(error).splitlines()[0]
    return None
