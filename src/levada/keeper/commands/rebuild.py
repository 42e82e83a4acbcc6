"""Build a store, or one table of it, again from the source while readers go on."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ..lending import kept
from ..progress import ProgressBar
from .stores import known_labels, known_store


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("alias", help="the store")
    parser.add_argument(
        "--table", metavar="APP.MODEL", action="append", help="only this table; may be repeated"
    )


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """Rebuild; readers see the old tables until the new ones are complete."""
    from ...apply import rebuild

    alias = known_store(options["alias"])
    labels = known_labels(alias, options["table"])
    progress = ProgressBar(command.stderr, word="Building")
    try:
        with kept("relay"):  # a rebuild waits for the log to have what its snapshot shows
            rebuild(alias, labels, progress=progress)
    finally:
        progress.close()
    what = ", ".join(labels) if labels else "every table"
    command.stdout.write(f"{alias}: rebuilt {what}. To prove it: manage.py levada verify {alias}")
    return 0
