"""Say which tables are captured, show the triggers' SQL, or install them."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ... import conf
from ...conf import settings


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--sql", action="store_true", help="print the SQL and change nothing")
    what.add_argument(
        "--install",
        action="store_true",
        help="install what is missing or outdated; `migrate` does the same",
    )


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """Print; 1 when a table's triggers are missing or outdated and were not asked for."""
    from ...capture import install, stale, trigger_sql

    source = settings.SOURCE
    if options["sql"]:
        command.stdout.write(trigger_sql(source))
        return 0
    if options["install"]:
        changed = install(source)
        for label in changed:
            command.stdout.write(f"{label}: installed")
        if not changed:
            command.stdout.write(f"The triggers of {source} are up to date.")
        return 0
    outdated = set(stale(source))
    labels = sorted(set(conf.replicated()) | outdated)
    width = max((len(label) for label in labels), default=0)
    for label in labels:
        state = "missing or outdated" if label in outdated else "captured"
        command.stdout.write(f"{label:<{width}}  {state}")
    if outdated:
        command.stdout.write("Run: manage.py levada triggers --install")
    return 1 if outdated else 0
