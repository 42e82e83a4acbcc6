"""
Hand records to a consumer group, or apply them to a store, once more.

A group's position moves back and its handlers see every record since again.
A store's position never moves back: the records from the given place up to
where the store is are applied again in one transaction, the last change of
each key winning, so that no reader sees an old value return.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ..replaying import replay


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("consumer", help="a store's alias or a consumer group")
    parser.add_argument(
        "--topic", help="a group's topic, where it reads several (a store reads `changes`)"
    )
    parser.add_argument(
        "--from",
        dest="begin",
        metavar="WHERE",
        default="beginning",
        help="a position (epoch:topic:offset), an offset, or `beginning`, the oldest record "
        "kept (the default)",
    )


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """Replay and say what was done."""
    command.stdout.write(replay(options["consumer"], options["begin"], options["topic"]))
    return 0
