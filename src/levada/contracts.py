"""
What the places promise the movers: the log, and a store that changes are applied to.

One test suite per contract runs on every implementation (tests/contract).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from .changes import Batch, Position, SourcePosition
from .tables import TableSpec


class Log(Protocol):
    """
    An ordered sequence of records per topic, with positions, kept by one producer.

    Readers may be in any thread or process. `epoch` is drawn when the log is
    created and never changes.
    """

    epoch: str

    def append(
        self,
        rows: Sequence[tuple[Any, ...]],
        *,
        source: str,
        expected: str | None,
        cursor: str,
        whole: bool = True,
    ) -> None:
        """
        Append `rows` in their order and move `source`'s producer cursor, atomically and durably.

        rows: tuples in the column order of `OutboxRow`; may be empty, then
        only the cursor moves. Rows of one transaction stand together, where
        `transaction` is known.
        expected: the cursor this relay last saw (None before the first
        append). Raises LogFenced, writing nothing, if it is another by now.
        whole: the rows end between two transactions; the log remembers that
        a batch may end here. Rows appended with `whole=False` are no reader's
        business until an append with `whole=True` completes them.
        Raises LogFull, LogUnavailable and LogCorrupt, having written nothing.
        """

    def cursor(self, source: str) -> str | None:
        """Return the producer cursor of `source`, None before its first append."""

    def read(self, position: Position, limit: int, *, split: bool = False) -> Batch:
        """
        Return about `limit` records from `position` on, whole transactions only.

        At most `limit` records if a transaction ends among them; a larger
        transaction comes as one larger batch, or, with `split`, in batches
        of at most `limit`, the last of which is `whole`.
        An empty batch where there is nothing yet. Raises ForeignPosition for
        a position of another log, PositionLost where retention has passed it,
        LogCorrupt for one beyond the end: the log has lost records.
        """

    def beginning(self, topic: str) -> Position:
        """Return the position of the oldest record kept."""

    def end(self, topic: str) -> Position:
        """Return the position after the newest readable record; 0 for a topic nobody wrote to."""

    def age_s(self, position: Position) -> float:
        """Return how many seconds ago the record at `position` was appended; 0 if there is none."""

    def size_bytes(self) -> int:
        """Return how much room the log takes, on disk or in memory, roughly."""

    def topics(self) -> tuple[str, ...]:
        """Return the topics that hold or held records, sorted."""

    def wait(self, position: Position, timeout_s: float) -> bool:
        """Wait until a record stands at `position`; False when `timeout_s` passed without one."""

    def commit(self, group: str, position: Position) -> None:
        """
        Remember that consumer group `group` has finished everything before `position`.

        May go back (a replay). A reader commits where it starts before it
        reads: retention waits only for groups that it knows. A power loss
        may undo the latest commits, so exactly-once consumers keep their
        position with their own data as well.
        """

    def committed(self, group: str, topic: str) -> Position | None:
        """Return the group's position in `topic`, None if it never committed there."""

    def groups(self) -> dict[str, dict[str, Position]]:
        """Return every group's positions, by group, then by topic."""

    def leave(self, group: str) -> None:
        """Forget `group`, so that retention no longer waits for it."""

    def prune(self, *, older_than_s: float) -> int:
        """
        Delete records appended over `older_than_s` ago that every group of their topic has passed.

        Returns how many. Never outruns a consumer group.
        """

    def forget(self, label: str, key: str) -> int:
        """Blank the images and context of every kept record of one row; returns how many."""

    def close(self) -> None:
        """Release files and connections; the log can be opened again."""


class Store(Protocol):
    """A place that row changes are applied to, with its position in the same transaction."""

    alias: str

    def position(self) -> Position | None:
        """Return the durable position, None for a store that was never filled."""

    def specs(self) -> dict[str, TableSpec]:
        """Return the specs of the tables the store holds, by label."""

    def apply(
        self,
        batch: Batch,
        *,
        expected: Position | None,
        skip: Collection[int] = (),
        read: Callable[[Position], Batch] | None = None,
    ) -> Position:
        """
        Write `batch` and its end position in one transaction.

        Of several changes to one key the last wins. skip: offsets to leave
        out. read: gives the parts after a `batch` that is not whole, which
        belong into the same transaction. Returns the position now durable; a
        replayed batch changes nothing.
        Raises, having written nothing: PositionMoved if the store's position
        is not `expected`; SchemaDrift if a record's fingerprint is not its
        table's; PoisonRecord naming the first record that cannot be taken.
        """


class Fetched(NamedTuple):
    """
    What one look into the outbox found.

    rows: tuples in the column order of `OutboxRow`, in commit order, rows of
        one transaction together.
    cursor: where the relay stands once the log holds them.
    more: fetch again at once. If there are no rows the cursor has passed the
        end of a window and the log should hear of it.
    whole: the rows end between two transactions.
    """

    rows: Sequence[tuple[Any, ...]]
    cursor: str
    more: bool
    whole: bool


class SourceSnapshot(Protocol):
    """A read-only view of the source database as it was at `position`, until it is closed."""

    position: SourcePosition
    vendor: str
    connection: Any
    """The driver's own connection (sqlite3 or psycopg), inside the snapshot's transaction."""

    def chunks(
        self, sql: str, params: Sequence[Any] = (), *, chunk_rows: int = 10_000
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Stream a query's rows in lists of at most `chunk_rows`; placeholders are the driver's."""


class Source(Protocol):
    """
    What relay, snapshot and verify ask of the source database; one implementation a vendor.

    It has database connections of its own, opened at need; it may be used by
    several threads and survives a fork.
    """

    alias: str
    vendor: str

    def fetch(self, cursor: str | None, limit: int) -> Fetched:
        """
        Return about `limit` committed rows that a relay at `cursor` has not seen, in commit order.

        Raises ForeignPosition where `cursor` is ahead of the database, which
        was then replaced or restored from a backup.
        """

    def changed(self) -> bool:
        """Return False only if it is certain, at next to no cost, that nothing was committed."""

    def prune(self, cursor: str, ids: Sequence[int] | None = None, *, epoch: str) -> int:
        """
        Delete rows that the log durably holds, in small transactions; return how many.

        ids: the rows' ids; None for all that a relay at `cursor` has relayed.
        `cursor` is remembered for the log `epoch`, see `pruned()`.
        """

    def pruned(self, epoch: str) -> str | None:
        """Return the cursor up to which rows were deleted on the word of the log `epoch`."""

    def reaches(self, cursor: str | None, other: str) -> bool:
        """Say whether a relay at `cursor` has come at least as far as one at `other`."""

    def size(self) -> int:
        """Count the rows waiting in the outbox."""

    def position(self) -> SourcePosition:
        """Return what is committed now."""

    def covers(self, cursor: str | None, position: SourcePosition) -> bool:
        """
        Say whether the log holds everything of `position` once its producer cursor is `cursor`.

        Read `cursor` from the log first, then ask, then note the log's end:
        that end is after every change committed at `position`.
        """

    def visible(self, record: Any, position: SourcePosition) -> bool:
        """Say whether `record`'s transaction had committed at `position`."""

    def snapshot(self) -> AbstractContextManager[SourceSnapshot]:
        """Open a consistent view of the database with the position it shows."""

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
