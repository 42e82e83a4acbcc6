"""
What the places promise the movers: the log, and a store that changes are applied to.

One test suite per contract runs on every implementation (tests/contract).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .changes import Batch, OutboxRow, Position, SourcePosition
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
        rows: Sequence[OutboxRow],
        *,
        source: str,
        expected: str | None,
        cursor: str,
    ) -> None:
        """
        Append `rows` in their order and move `source`'s producer cursor, atomically and durably.

        expected: the cursor this relay last saw (None before the first
        append). Raises LogFenced, writing nothing, if it is another by now.
        `rows` may be empty: then only the cursor moves. The rows are whole
        transactions; the log remembers that a batch may end after them.
        """

    def cursor(self, source: str) -> str | None:
        """Return the producer cursor of `source`, None before its first append."""

    def read(self, position: Position, limit: int) -> Batch:
        """
        Return up to about `limit` records from `position` on, whole transactions only.

        An empty batch where there is nothing yet. Raises ForeignPosition for
        a position of another log, PositionLost where retention has passed it.
        """

    def beginning(self, topic: str) -> Position:
        """Return the position of the oldest record kept."""

    def end(self, topic: str) -> Position:
        """Return the position after the newest record; 0 for a topic nobody wrote to."""

    def topics(self) -> tuple[str, ...]:
        """Return the topics that hold or held records, sorted."""

    def wait(self, position: Position, timeout_s: float) -> bool:
        """Wait until a record stands at `position`; False when `timeout_s` passed without one."""

    def commit(self, group: str, position: Position) -> None:
        """Remember that consumer group `group` has finished everything before `position`."""

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

    def apply(self, batch: Batch, *, expected: Position | None) -> Position:
        """
        Write `batch` and its end position in one transaction.

        Of several changes to one key the last wins. Returns the position now
        durable; a replayed batch changes nothing.
        Raises, having written nothing: PositionMoved if the store's position
        is not `expected`; SchemaDrift if a record's fingerprint is not its
        table's; PoisonRecord naming the first record that cannot be taken.
        """


class Source(Protocol):
    """What relay, snapshot and verify ask of the source database; one implementation a vendor."""

    alias: str

    def position(self) -> SourcePosition:
        """Return what is committed now."""

    def covers(self, cursor: str | None, position: SourcePosition) -> bool:
        """Say whether a relay at producer cursor `cursor` has relayed all of `position`."""

    def visible(self, record: Any, position: SourcePosition) -> bool:
        """Say whether `record`'s transaction had committed at `position`."""
