"""`manage.py crawl_calendar`: bring the release events of every known history into the calendar."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from almanac.calendar_events.histories import HISTORIES, History, events
from almanac.calendar_events.importer import import_events


class Command(BaseCommand):
    """Import each history in its own transaction and print what was new or had changed."""

    help = "Bring the real release events into the calendar; a second run changes nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--source", help="only this one, for example statsmodels.macrodata")
        parser.add_argument("--dry-run", action="store_true", help="count, but write nothing")

    def handle(self, *, source: str | None, dry_run: bool, **options: Any) -> None:
        for history in chosen(source):
            done = import_events(events(history), dry_run=dry_run)
            self.stdout.write(
                f"{history.source:<28} {done.new:>6,} new  {done.changed:>6,} changed  "
                f"{done.unchanged:>6,} unchanged"
            )
        if dry_run:
            self.stdout.write("Nothing was written. Leave out --dry-run to write it.")


def chosen(source: str | None) -> tuple[History, ...]:
    """Return the history called `source`, all for None. Raises CommandError."""
    if source is None:
        return HISTORIES
    found = tuple(history for history in HISTORIES if history.source == source)
    if not found:
        known = ", ".join(history.source for history in HISTORIES)
        raise CommandError(f"{source!r} is no source of the calendar. Choose one of: {known}")
    return found
