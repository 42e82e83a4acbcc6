"""
Bring release events into the calendar: what is new or has changed is written, nothing else.

An upsert that rewrites every row would fire every trigger, and a second crawl
of the same figures would send thousands of changes through the log that
change nothing. So the rows that stand already are read first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import NamedTuple

from django.db import transaction

from .models import EconomicEvent

CHUNK_ROWS = 500
"""Rows looked up and written at once: below SQLite's oldest limit of 999 parameters a lookup."""

FIGURES = (
    "importance",
    "actual",
    "forecast",
    "previous",
    "unit",
    "period",
    "status",
    "date_basis",
    "source",
)
"""The fields an import may change; the others are the event's key."""


class EventKey(NamedTuple):
    """What makes an event the same event."""

    date: date
    time: time | None
    country: str
    event_name: str


@dataclass(frozen=True, slots=True)
class Imported:
    """How many events were new, changed and already as they should be."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0

    def __add__(self, other: Imported) -> Imported:
        return Imported(
            self.new + other.new, self.changed + other.changed, self.unchanged + other.unchanged
        )

    @property
    def total(self) -> int:
        """All events that were looked at."""
        return self.new + self.changed + self.unchanged


def import_events(
    events: Iterable[EconomicEvent],
    *,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Imported:
    """
    Write the difference between `events` and the calendar, all in one transaction.

    events: unsaved; of several with one key the last wins. dry_run: count
    only. progress: called with the number of events done so far.
    """
    wanted = {key_of(event): event for event in events}
    ordered = [wanted[key] for key in sorted(wanted, key=lambda key: key.date)]
    imported = Imported()
    with transaction.atomic():
        for chunk in _chunks(ordered):
            imported += _import_chunk(chunk, dry_run=dry_run)
            progress(imported.total)
    return imported


def key_of(event: EconomicEvent) -> EventKey:
    """Return what makes `event` the same event."""
    return EventKey(event.date, event.time, event.country, event.event_name)


def figures_of(event: EconomicEvent) -> tuple[object, ...]:
    """Return what an import may change about `event`."""
    return tuple(getattr(event, name) for name in FIGURES)


def _chunks(events: Sequence[EconomicEvent]) -> Iterator[Sequence[EconomicEvent]]:
    for start in range(0, len(events), CHUNK_ROWS):
        yield events[start : start + CHUNK_ROWS]


def _import_chunk(chunk: Sequence[EconomicEvent], *, dry_run: bool) -> Imported:
    standing = _standing(chunk)
    new, changed = [], []
    for event in chunk:
        before = standing.get(key_of(event))
        if before is None:
            new.append(event)
        elif figures_of(before) != figures_of(event):
            event.pk = before.pk
            changed.append(event)
    if not dry_run:
        _write(new, changed)
    return Imported(len(new), len(changed), len(chunk) - len(new) - len(changed))


def _standing(chunk: Sequence[EconomicEvent]) -> dict[EventKey, EconomicEvent]:
    """Return the saved events that share a key with `chunk`, found by the date's index."""
    candidates = EconomicEvent.objects.filter(
        date__in={event.date for event in chunk},
        event_name__in={event.event_name for event in chunk},
    )
    return {key_of(event): event for event in candidates}


def _write(new: list[EconomicEvent], changed: list[EconomicEvent]) -> None:
    """
    Insert `new`, taking over rows that another importer inserted meanwhile; update `changed`.

    An event without a time lies under a partial index, which Django's
    `unique_fields` cannot name. Two crawls that insert the same one at the
    same moment leave one of the two rows; the next crawl would correct it.
    """
    EconomicEvent.objects.bulk_create(
        [event for event in new if event.time is not None],
        update_conflicts=True,
        unique_fields=list(EventKey._fields),
        update_fields=list(FIGURES),
    )
    EconomicEvent.objects.bulk_create(
        [event for event in new if event.time is None], ignore_conflicts=True
    )
    EconomicEvent.objects.bulk_update(changed, FIGURES, batch_size=50)
