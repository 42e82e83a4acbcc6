"""
Automatic keys of a lake: numbers from a sequence in the catalogue's PostgreSQL.

A lake has neither sequences nor RETURNING, so a key is drawn before its row
is written. Sequences lie in the lake's schema, one for each table and column,
named `levada_key_` and a digest. One that is not there yet begins after the
highest key of the table.
"""

from __future__ import annotations

import hashlib
from typing import Any

import duckdb

from ..failures import named
from ..parameters import literal, unquoted
from .lake import METADATA, Lake


def take(connection: Any, table: str, column: str, count: int) -> list[int]:
    """Return `count` keys nobody else gets."""
    sequence = _Sequence(connection, table, column)
    return sequence.take(count)


def pass_over(connection: Any, table: str, column: str, highest: int) -> None:
    """Let the keys go on after `highest`, which a row was given by hand."""
    _Sequence(connection, table, column).pass_over(highest)


class _Sequence:
    """One table's sequence. Works beside the transaction of `connection`, not in it."""

    def __init__(self, connection: Any, table: str, column: str) -> None:
        connection.ensure_connection()
        self._django = connection
        self._table, self._column = table, column
        self._instance = connection.connection.session.instance
        lake: Lake = connection.lake
        digest = hashlib.sha256(f"{unquoted(table)}.{column}".lower().encode()).hexdigest()[:24]
        self._name = f'"{lake.name}".levada_key_{digest}'

    def take(self, count: int) -> list[int]:
        query = f"SELECT nextval('{self._name}') AS key FROM generate_series(1, {int(count)})"
        with self._instance.aside() as raw, named(self._instance.path):
            try:
                rows = _ask(raw, query)
            except duckdb.Error as error:
                if "does not exist" not in str(error):
                    raise
                self._make(raw)
                rows = _ask(raw, query)
        return [key for (key,) in rows]

    def pass_over(self, highest: int) -> None:
        advance = (
            f"SELECT setval('{self._name}', {int(highest)}) FROM {self._name} "
            f"WHERE last_value < {int(highest)}"
        )
        with self._instance.aside() as raw, named(self._instance.path):
            if _ask(raw, f"SELECT to_regclass('{self._name}') IS NULL") == [(True,)]:
                return  # it will begin after the table's highest key
            # One after the other, or a lower number could be set after a higher one.
            raw.begin()
            try:
                _ask(raw, f"SELECT pg_advisory_xact_lock(hashtext('{self._name}')) IS NULL")
                _ask(raw, advance)
                raw.commit()
            except BaseException:
                raw.rollback()
                raise

    def _make(self, raw: duckdb.DuckDBPyConnection) -> None:
        quote = self._django.ops.quote_name
        with self._django.cursor() as cursor:
            cursor.execute(
                f"SELECT coalesce(max({quote(self._column)}), 0) + 1 FROM {quote(self._table)}"
            )
            first = max(1, int(cursor.fetchone()[0]))
        sql = f"CREATE SEQUENCE IF NOT EXISTS {self._name} START {first}"
        raw.execute(f"CALL postgres_execute({literal(METADATA)}, {literal(sql)})")


def _ask(raw: duckdb.DuckDBPyConnection, query: str) -> list[Any]:
    """Run one query in the catalogue's PostgreSQL."""
    return raw.execute(f"FROM postgres_query({literal(METADATA)}, {literal(query)})").fetchall()
