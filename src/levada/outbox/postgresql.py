"""
The outbox of a PostgreSQL source.

Ids are drawn before the commit, so they say nothing about who committed
first: a relay that remembers the highest id skips whoever commits late. The
cursor is a snapshot instead (see `cursors`), the method of PgQ. Within a window the
transactions are put in the order of their *last* outbox id. That order is
one in which they could have run one after the other: whoever waits for a
transaction's lock, or reads what it wrote, draws a later id after its commit.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from django.db import connections

from .. import faults, forks
from ..changes import SourcePosition
from ..contracts import Fetched
from ..errors import ConfigurationError, ForeignPosition, SourceUnavailable
from .cursors import Snapshot, SnapshotCursor
from .sources import COLUMNS, ID, TRANSACTION

try:
    import psycopg
except ImportError:  # pragma: no cover
    psycopg = None  # type: ignore[assignment]

Row = tuple[Any, ...]

WINDOW = """
    (transaction >= %(start)s OR transaction = ANY (%(start_running)s))
    AND transaction < %(end)s AND transaction <> ALL (%(end_running)s)
"""
"""Rows whose transaction was running or to come in one snapshot, and is committed in the other."""

FETCH = f"SELECT {COLUMNS} FROM levada_outbox WHERE {WINDOW} LIMIT %(limit)s"
PLAN = f"""
    SELECT transaction, max(id) AS last, count(*) FROM levada_outbox WHERE {WINDOW}
    GROUP BY transaction HAVING max(id) > %(done)s ORDER BY last LIMIT %(limit)s
"""
OF_TRANSACTIONS = f"SELECT {COLUMNS} FROM levada_outbox WHERE transaction = ANY (%s)"
OF_LARGE_ONE = (
    f"SELECT {COLUMNS} FROM levada_outbox WHERE transaction = %s AND id > %s ORDER BY id LIMIT %s"
)
WAITING = f"SELECT EXISTS (SELECT 1 FROM levada_outbox WHERE {WINDOW})"
PRUNE_IDS = "DELETE FROM levada_outbox WHERE id = ANY (%s)"
PRUNE_BELOW = """
    DELETE FROM levada_outbox WHERE id = ANY (ARRAY (
        SELECT id FROM levada_outbox
        WHERE (transaction, id) > (%(transaction)s, %(id)s)
        AND transaction < %(end)s AND transaction <> ALL (%(running)s)
        ORDER BY transaction, id LIMIT %(limit)s))
    RETURNING transaction, id
"""
"""Delete what is relayed, going on after the row deleted last: the index keeps those a while."""
REMEMBER = """
    INSERT INTO levada_relay (epoch, cursor) VALUES (%s, %s)
    ON CONFLICT (epoch) DO UPDATE SET cursor = excluded.cursor
"""
PRUNE_ROWS = 5_000
PLAN_TRANSACTIONS = 200_000  # about 25 MB; a longer backlog is planned again when these are done


@dataclass(slots=True)
class _Plan:
    """The transactions of one window, in commit order: number, last id, rows."""

    start: Snapshot
    end: Snapshot
    transactions: list[tuple[int, int, int]]
    complete: bool


class PostgreSQLSource:
    """The `Source` contract on PostgreSQL, through one connection of its own."""

    vendor = "postgresql"

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._start()
        forks.watch(self)

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[Row] | None = None
        self._plan: _Plan | None = None

    def abandon(self) -> list[Any]:
        left = [self._connection]
        self._start()
        return left

    def fetch(self, cursor: str | None, limit: int) -> Fetched:
        at = SnapshotCursor.parse(cursor)
        with self._connected() as connection:
            if at.end is not None:
                return self._part(connection, at, limit)
            end = _snapshot(connection)
            if end == at.start:
                return Fetched([], str(end), False, True)
            self._check_not_ahead(at.start, end)
            window = _window(at.start, end)
            rows = connection.execute(FETCH, {**window, "limit": limit + 1}, binary=True).fetchall()
            if len(rows) <= limit:
                return Fetched(in_commit_order(rows), str(end), False, True)
            return self._part(connection, SnapshotCursor(at.start, end), limit)

    def _part(self, connection: psycopg.Connection[Row], at: SnapshotCursor, limit: int) -> Fetched:
        """Return the next transactions of a window that is larger than one batch."""
        assert at.end is not None
        plan = self._planned(connection, at)
        first = bisect_right(plan.transactions, at.done, key=lambda each: each[1])
        if first == len(plan.transactions):
            return Fetched([], str(at.end), True, True)
        last, size = first, 0
        while last < len(plan.transactions) and size + plan.transactions[last][2] <= limit:
            size += plan.transactions[last][2]
            last += 1
        if last == first or at.inside:
            return _part_of_large_one(connection, at, plan.transactions[first], limit)
        chosen = plan.transactions[first:last]
        rows = connection.execute(
            OF_TRANSACTIONS, [[each[0] for each in chosen]], binary=True
        ).fetchall()
        done = SnapshotCursor(at.start, at.end, chosen[-1][1])
        if last == len(plan.transactions) and plan.complete:
            return Fetched(in_commit_order(rows), str(at.end), True, True)
        return Fetched(in_commit_order(rows), str(done), True, True)

    def _planned(self, connection: psycopg.Connection[Row], at: SnapshotCursor) -> _Plan:
        assert at.end is not None
        plan = self._plan
        if plan and (plan.start, plan.end) == (at.start, at.end):
            behind = not plan.transactions or plan.transactions[-1][1] <= at.done
            if plan.complete or not behind:
                return plan
        found = connection.execute(
            PLAN,
            {**_window(at.start, at.end), "done": at.done, "limit": PLAN_TRANSACTIONS},
        ).fetchall()
        complete = len(found) < PLAN_TRANSACTIONS
        self._plan = _Plan(at.start, at.end, found, complete)
        return self._plan

    def _check_not_ahead(self, start: Snapshot, now: Snapshot) -> None:
        if now.xmax < start.xmax:
            raise ForeignPosition(
                f"the relay has come to transaction {start.xmax} of {self.alias!r}, but the "
                f"database is at {now.xmax}: it was replaced or restored from a backup. "
                f"Move the log away and run: manage.py levada rebuild"
            )

    def changed(self) -> bool:
        """Asking PostgreSQL costs as much as fetching, so this is no filter here."""
        return True

    def prune(self, cursor: str, ids: Sequence[int] | None = None, *, epoch: str) -> int:
        if ids is None:
            return self._prune_below(cursor, epoch)
        total = 0
        with self._connected() as connection:
            for start in range(0, len(ids), PRUNE_ROWS):
                with connection.transaction():
                    connection.execute(REMEMBER, [epoch, cursor])
                    some = list(ids[start : start + PRUNE_ROWS])
                    total += connection.execute(PRUNE_IDS, [some]).rowcount
                faults.point("relay.in_prune")
        return total

    def _prune_below(self, cursor: str, epoch: str) -> int:
        """Delete whatever earlier relays left behind below `cursor`."""
        below = SnapshotCursor.parse(cursor).start
        total, last = 0, (0, 0)
        with self._connected() as connection:
            while True:
                with connection.transaction():
                    deleted = connection.execute(
                        PRUNE_BELOW,
                        {
                            "transaction": last[0],
                            "id": last[1],
                            "end": below.xmax,
                            "running": list(below.running),
                            "limit": PRUNE_ROWS,
                        },
                    ).fetchall()
                    if deleted:
                        connection.execute(REMEMBER, [epoch, cursor])
                        last = max(deleted)
                total += len(deleted)
                if len(deleted) < PRUNE_ROWS:
                    return total

    def pruned(self, epoch: str) -> str | None:
        with self._connected() as connection:
            row = connection.execute(
                "SELECT cursor FROM levada_relay WHERE epoch = %s", [epoch]
            ).fetchone()
        return row[0] if row else None

    def reaches(self, cursor: str | None, other: str) -> bool:
        return SnapshotCursor.parse(cursor).reaches(SnapshotCursor.parse(other))

    def size(self) -> int:
        with self._connected() as connection:
            return int(_value(connection, "SELECT count(*) FROM levada_outbox"))

    def position(self) -> SourcePosition:
        with self._connected() as connection:
            return SourcePosition(self.alias, str(_snapshot(connection)))

    def covers(self, cursor: str | None, position: SourcePosition) -> bool:
        """
        Ask the snapshots, then the outbox.

        Transactions without captured changes move the database's snapshot,
        but not the relay's cursor: what counts is that no row is left between them.
        """
        done, asked = SnapshotCursor.parse(cursor).start, Snapshot.parse(position.cursor)
        if done.covers(asked):
            return True
        with self._connected() as connection:
            return not connection.execute(WAITING, _window(done, asked)).fetchone()[0]  # type: ignore[index]

    def visible(self, record: Any, position: SourcePosition) -> bool:
        return Snapshot.parse(position.cursor).sees(int(record.transaction))

    @contextmanager
    def snapshot(self) -> Iterator[PostgreSQLSnapshot]:
        with self._named():
            connection = self._open()
        try:
            with self._named():
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                position = SourcePosition(self.alias, str(_snapshot(connection)))
            yield PostgreSQLSnapshot(connection, position)
        finally:
            connection.close()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                with suppress(psycopg.Error):
                    self._connection.close()
            self._connection = None

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Row]]:
        with self._lock, self._named():
            if self._connection is None or self._connection.closed:
                self._connection = self._open()
                # The queue's statistics are always out of date; the index never is.
                self._connection.execute("SET enable_seqscan = off")
            yield self._connection

    def _open(self) -> psycopg.Connection[Row]:
        if psycopg is None:
            raise ConfigurationError(
                "a PostgreSQL source needs psycopg 3. Run: pip install 'levada[postgresql]'"
            )
        django_connection = connections[self.alias]
        params = dict(django_connection.get_connection_params())
        for django_only in ("context", "cursor_factory", "pool", "isolation_level", "assume_role"):
            params.pop(django_only, None)
        connection: psycopg.Connection[Row] = psycopg.connect(**params, autocommit=True)
        connection.execute("SET TimeZone = 'UTC'")
        role = django_connection.settings_dict["OPTIONS"].get("assume_role")
        if role:
            connection.execute(psycopg.sql.SQL("SET ROLE {}").format(psycopg.sql.Identifier(role)))
        return connection

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.UndefinedTable as error:
            raise SourceUnavailable(
                f"the source database {self.alias!r} has no outbox yet. "
                f"Run: manage.py migrate --database {self.alias}"
            ) from error
        except psycopg.Error as error:
            self.close()
            raise SourceUnavailable(
                f"the source database {self.alias!r} does not answer ({error}). "
                f"Check DATABASES[{self.alias!r}] and that the server runs."
            ) from error


class PostgreSQLSnapshot:
    """The `SourceSnapshot` contract: a REPEATABLE READ, READ ONLY transaction."""

    vendor = "postgresql"

    def __init__(self, connection: psycopg.Connection[Row], position: SourcePosition) -> None:
        self.connection = connection
        self.position = position

    def chunks(
        self, sql: str, params: Sequence[Any] = (), *, chunk_rows: int = 10_000
    ) -> Iterator[list[Row]]:
        with self.connection.cursor(name="levada_snapshot") as cursor:
            cursor.execute(sql, params or None)
            while rows := cursor.fetchmany(chunk_rows):
                yield rows


def in_commit_order(rows: list[Row]) -> list[Row]:
    """
    Sort the rows of whole transactions: transactions by their last id, rows by id.

    rows: in any order; the list is sorted in place and returned.
    """
    last: dict[int, int] = {}
    for row in rows:
        if row[ID] > last.get(row[TRANSACTION], 0):
            last[row[TRANSACTION]] = row[ID]
    rows.sort(key=lambda row: (last[row[TRANSACTION]], row[ID]))
    return rows


def _part_of_large_one(
    connection: psycopg.Connection[Row],
    at: SnapshotCursor,
    transaction: tuple[int, int, int],
    limit: int,
) -> Fetched:
    """Return the next `limit` rows of a transaction that alone is larger than a batch."""
    number, last, _ = transaction
    rows = connection.execute(OF_LARGE_ONE, [number, at.inside, limit], binary=True).fetchall()
    if not rows or rows[-1][ID] == last:
        return Fetched(rows, str(SnapshotCursor(at.start, at.end, last)), True, True)
    inside = SnapshotCursor(at.start, at.end, at.done, rows[-1][ID])
    return Fetched(rows, str(inside), True, False)


def _snapshot(connection: psycopg.Connection[Row]) -> Snapshot:
    return Snapshot.parse(_value(connection, "SELECT pg_current_snapshot()::text"))


def _value(connection: psycopg.Connection[Row], sql: str) -> Any:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row[0]


def _window(start: Snapshot, end: Snapshot) -> dict[str, Any]:
    return {
        "start": start.xmax,
        "start_running": list(start.running),
        "end": end.xmax,
        "end_running": list(end.running),
    }
