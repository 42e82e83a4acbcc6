"""Show how far the log and each store have come, and whether somebody keeps them."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from .. import words
from ..status import read_status
from .stores import known_store


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("alias", nargs="?", help="one store (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """Print; 0 when every store answers, 1 when one does not."""
    alias = options["alias"]
    status = read_status([known_store(alias)] if alias else None)
    if options["json"]:
        command.stdout.write(json.dumps(status.to_json(), indent=2, default=str))
    else:
        command.stdout.write("\n".join(words.status(status)))
    failed = status.outbox.error or status.log.error or any(s.error for s in status.stores)
    return 1 if failed else 0
