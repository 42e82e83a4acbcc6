"""
A store inside the transaction that is open on Django's connection, for a TestCase.

Everything written through it is undone with the test. It cannot commit or
roll back a part: after an error only the end of the test helps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.db import connections

if TYPE_CHECKING:
    import pyarrow

    from .connection import Connection, Cursor


class InsideConnection:
    """The `Connection` of Django's connection `alias` in this thread, without its transactions."""

    def __init__(self, alias: str) -> None:
        connections[alias].ensure_connection()
        self._connection: Connection = connections[alias].connection

    def sibling(self) -> Connection:
        """Open a connection outside of the test's transaction."""
        return self._connection.sibling()

    def cursor(self) -> Cursor:
        """Return a new cursor in the test's transaction."""
        return self._connection.cursor()

    def execute(
        self, sql: str, params: Any = None, *, arrow: Mapping[str, pyarrow.Table] | None = None
    ) -> Cursor:
        """Run one statement in the test's transaction and return its cursor."""
        return self._connection.execute(sql, params, arrow=arrow)

    def fetch_arrow(self, sql: str, params: Any = None) -> pyarrow.Table:
        """Run one query in the test's transaction and return its rows."""
        return self._connection.fetch_arrow(sql, params)

    def begin(self) -> None:
        """The test's transaction is open already."""

    def commit(self) -> None:
        """The test's transaction is never committed."""

    def rollback(self) -> None:
        """DuckDB has no savepoints: what was written goes when the test ends."""

    def close(self) -> None:
        """Django's connection is not ours to close."""
