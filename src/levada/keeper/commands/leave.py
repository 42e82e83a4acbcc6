"""Forget a consumer group that nobody runs any more, so that the log stops waiting for it."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ... import conf
from ...conf import settings
from ...log import open_log
from .failure import Failure


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("group", help="as `manage.py levada status` lists it")


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """Forget the group's positions. Refuses for one that the project still has."""
    from ...apply.handlers import groups
    from ...outbox.models import GroupPosition

    group = options["group"]
    positions = GroupPosition.objects.using(settings.SOURCE).filter(group=group)
    log = open_log()
    known = log.groups()
    if group not in known and not positions.exists():
        raise Failure(
            f"The log knows no group {group!r}. Its groups are: {', '.join(known) or 'none'}."
        )
    if group in conf.store_aliases() or group in groups():
        raise Failure(
            f"{group!r} is still in use: it is a store of LEVADA['REPLICATE'] or a group of "
            f"@levada.subscribe. Take it out of the project first."
        )
    log.leave(group)
    positions.delete()
    command.stdout.write(f"{group}: left. The log no longer waits for it.")
    return 0
