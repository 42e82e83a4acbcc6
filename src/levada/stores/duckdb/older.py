"""What DuckDB 1.5, of which there is a packaged DuckLake, tells in another way than 2.0."""

from __future__ import annotations

from typing import Any

import duckdb

OLDER = duckdb.__version__.startswith("1.")


def complete(raw: duckdb.DuckDBPyConnection) -> None:
    """Run a result nobody reads on to its end."""
    if OLDER:
        raw.fetchall()
    else:
        raw.complete()


def told_by(raw: duckdb.DuckDBPyConnection, sql: str) -> int | None:
    """
    Return the row count of what was just run, -1 if it has none, None if it gave rows.

    DuckDB 1.5 gives a count as one row of the column Count, and for DDL no row.
    """
    described: Any = raw.description
    names = [column[0] for column in described]
    if names not in (["Count"], ["Success"]):
        return None
    kinds = {duckdb.ExpectedResultType.CHANGED_ROWS, duckdb.ExpectedResultType.NOTHING}
    statement = duckdb.extract_statements(sql)[-1]
    if not kinds & set(statement.expected_result_type):
        return None
    rows = raw.fetchall()
    return int(rows[0][0]) if names == ["Count"] and rows else -1
