"""Drop Levada's triggers and tables from the source database, and nothing else."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ..uninstalling import leftovers, plan, uninstall
from .failure import Failure


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--no-input", action="store_true", help="do not ask")


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """Ask, drop, and say what is left to delete by hand."""
    going = plan()
    command.stdout.write(f"From the database {going.source!r} will go:")
    command.stdout.write(f"  the triggers of {', '.join(going.captured) or 'no table'}")
    command.stdout.write(f"  the tables {', '.join(going.tables) or 'none'}")
    if going.outbox_rows:
        command.stdout.write(f"  with {going.outbox_rows:,} changes that no store has yet")
    if not options["no_input"] and input("Type 'yes' to go on: ").strip().lower() != "yes":
        raise Failure("Nothing was changed. To go on without a question: --no-input")
    uninstall()
    command.stdout.write("Done. Yours to delete, when you no longer need them:")
    for path in leftovers():
        command.stdout.write(f"  {path}")
    command.stdout.write("Take 'levada' out of INSTALLED_APPS, and its stores out of DATABASES.")
    return 0
