"""Scrub one deleted row from the retained log and the dead letters."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ... import conf
from ..forgetting import forget
from ..lending import kept


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("label", metavar="APP.MODEL", help="the row's model")
    parser.add_argument(
        "pk", nargs="+", help="its primary key; the values of a composite key in their order"
    )


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """Forget and say what was done."""
    with kept("relay", *(f"apply:{alias}" for alias in conf.store_aliases())):
        done = forget(options["label"], options["pk"])
    command.stdout.write(
        f"{done.label} {done.key}: blanked {done.records} records of the log and "
        f"{done.dead_letters} dead letters. The row is in no store: "
        f"{', '.join(done.stores) or 'none has it'}."
    )
    return 0
