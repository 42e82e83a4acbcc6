"""
The outbox as one thread sees it through Django's own connection.

For tests inside a transaction that never commits, and for SQLite databases
in memory. There is one connection, hence one order: that of the ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connections

from ..changes import SourcePosition
from ..contracts import Fetched
from .cursors import IdCursor
from .sources import COLUMNS, ID

NEWEST = {
    "sqlite": (
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'levada_outbox'), 0)"
    ),
    "postgresql": (
        "SELECT coalesce(pg_sequence_last_value("
        "pg_get_serial_sequence('levada_outbox', 'id')::regclass), 0)"
    ),
}
"""The highest id handed out, also when its row has been pruned."""


class InsideSource:
    """The `Source` contract through Django's connection of the calling thread."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.vendor: str = connections[alias].vendor

    def fetch(self, cursor: str | None, limit: int) -> Fetched:
        done = IdCursor.parse(cursor).start
        sql = f"SELECT {COLUMNS} FROM levada_outbox WHERE id > %s ORDER BY id"
        rows = self._query(f"{sql} LIMIT %s", [done, limit + 1])
        if len(rows) <= limit:
            return Fetched(rows, str(rows[-1][ID] if rows else done), False, True)
        # In a test's one transaction there is no border but the end.
        rows = self._query(sql, [done])
        return Fetched(rows, str(rows[-1][ID]), False, True)

    def changed(self) -> bool:
        return True

    def prune(self, cursor: str, ids: Sequence[int] | None = None, *, epoch: str) -> int:
        with connections[self.alias].cursor() as django_cursor:
            django_cursor.execute(
                "DELETE FROM levada_outbox WHERE id <= %s", [IdCursor.parse(cursor).start]
            )
            return int(django_cursor.rowcount)

    def pruned(self, epoch: str) -> str | None:
        return None

    def reaches(self, cursor: str | None, other: str) -> bool:
        return IdCursor.parse(cursor).start >= IdCursor.parse(other).start

    def size(self) -> int:
        return int(self._query("SELECT count(*) FROM levada_outbox")[0][0])

    def position(self) -> SourcePosition:
        (newest,) = self._query(NEWEST[self.vendor])[0]
        return SourcePosition(self.alias, str(newest))

    def covers(self, cursor: str | None, position: SourcePosition) -> bool:
        between = [IdCursor.parse(cursor).start, int(position.cursor)]
        return not self._query(
            "SELECT 1 FROM levada_outbox WHERE id > %s AND id <= %s LIMIT 1", between
        )

    def visible(self, record: Any, position: SourcePosition) -> bool:
        return int(record.source_id) <= int(position.cursor)

    @contextmanager
    def snapshot(self) -> Iterator[InsideSnapshot]:
        yield InsideSnapshot(self.alias, self.position())

    def close(self) -> None:
        """Django's connection is not ours to close."""

    def _query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with connections[self.alias].cursor() as django_cursor:
            django_cursor.execute(sql, params or None)
            return list(django_cursor.fetchall())


class InsideSnapshot:
    """The `SourceSnapshot` contract: what this thread sees now; nobody else can write meanwhile."""

    def __init__(self, alias: str, position: SourcePosition) -> None:
        self.position = position
        self.vendor: str = connections[alias].vendor
        connections[alias].ensure_connection()
        self.connection = connections[alias].connection

    def chunks(
        self, sql: str, params: Sequence[Any] = (), *, chunk_rows: int = 10_000
    ) -> Iterator[list[tuple[Any, ...]]]:
        found = self.connection.execute(sql, params or ())
        while rows := found.fetchmany(chunk_rows):
            yield [tuple(row) for row in rows]
