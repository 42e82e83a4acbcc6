"""How far a store is behind its log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from levada.changes import CHANGES, Position, Record
from levada.contracts import Log

CHANGED_AT = Record._fields.index("changed_at")


@dataclass(frozen=True, slots=True)
class Lag:
    """
    records: in the log and not in the store; None for a store never filled.
    seconds: since the oldest of them was changed in the source, 0 if there is none.
    """

    records: int | None
    seconds: float


def lag(position: Position | None, log: Log, *, now: datetime | None = None) -> Lag:
    """
    Return how far a store at `position` is behind `log`.

    Raises ForeignPosition and PositionLost: then only a rebuild helps.
    """
    if position is None:
        return Lag(None, 0.0)
    end = log.end(CHANGES)
    records = position.lag(end)
    if not records:
        return Lag(0, 0.0)
    oldest = log.read(position, 1, split=True)
    if not oldest:
        return Lag(0, 0.0)
    changed_at = datetime.fromisoformat(oldest.rows[0][CHANGED_AT])
    if changed_at.tzinfo is None:
        changed_at = changed_at.replace(tzinfo=UTC)
    return Lag(records, max(0.0, ((now or datetime.now(UTC)) - changed_at).total_seconds()))
