"""
A store inside the transaction that is open on Django's connection, for a TestCase.

Everything written through it is undone with the test. Its own transactions are
savepoints there; without OPTIONS["savepoint_bytes"] an error can only be
undone by the end of the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.db import connections

if TYPE_CHECKING:
    import pyarrow

    from .connection import Connection, Cursor


SAVEPOINT = "levada_batch"


class InsideConnection:
    """The `Connection` of Django's connection `alias` in this thread, without its transactions."""

    def __init__(self, alias: str) -> None:
        connections[alias].ensure_connection()
        self._connection: Connection = connections[alias].connection
        self._begun = False
        self._has_savepoints = connections[alias].features.uses_savepoints

    def sibling(self) -> Connection:
        """Open a connection outside of the test's transaction."""
        return self._connection.sibling()

    def cursor(self) -> Cursor:
        """Return a new cursor in the test's transaction."""
        return self._connection.cursor()

    def execute(
        self, sql: str, params: Any = None, *, arrow: Mapping[str, pyarrow.Table] | None = None
    ) -> Cursor:
        """
        Run one statement in the test's transaction and return its cursor.

        Outside of begin() and commit() it is a transaction of its own, which
        leaves the test's as it was if it fails.
        """
        if self._begun:
            return self._connection.execute(sql, params, arrow=arrow)
        self.begin()
        try:
            cursor = self._connection.execute(sql, params, arrow=arrow)
        except BaseException:
            self.rollback()
            raise
        self.commit()
        return cursor

    def fetch_arrow(self, sql: str, params: Any = None) -> pyarrow.Table:
        """Run one query in the test's transaction and return its rows."""
        return self._connection.fetch_arrow(sql, params)

    def begin(self) -> None:
        """Set a savepoint in the test's transaction."""
        self._savepoint("SAVEPOINT")
        self._begun = True

    def commit(self) -> None:
        """Release the savepoint; the test's transaction is never committed."""
        self._begun = False
        self._savepoint("RELEASE SAVEPOINT")

    def rollback(self) -> None:
        """Go back to the savepoint. Raises SavepointLost."""
        self._begun = False
        self._savepoint("ROLLBACK TO SAVEPOINT")
        self._savepoint("RELEASE SAVEPOINT")

    def _savepoint(self, act: str) -> None:
        if self._has_savepoints:
            self._connection.execute(f"{act} {SAVEPOINT}")

    def close(self) -> None:
        """Django's connection is not ours to close."""
