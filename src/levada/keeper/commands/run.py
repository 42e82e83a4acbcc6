"""Run relay, appliers, handlers and retention until SIGTERM or Ctrl-C."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ...conf import settings
from .. import Keeper, logs


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--only",
        metavar="PARTS",
        help="comma-separated parts to run here: relay, apply, apply:ALIAS, handlers, "
        "handlers:GROUP, retention (default: all)",
    )
    parser.add_argument(
        "--health-port",
        type=int,
        metavar="PORT",
        help="answer /healthz and /metrics on 127.0.0.1:PORT, 0 for a free port "
        "(default: LEVADA['HEALTH_PORT'])",
    )
    parser.add_argument(
        "--log-format",
        choices=logs.FORMATS,
        default="auto",
        help="text for a person, json for a machine, auto: text on a terminal",
    )


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """Run until a signal; 0 when every part ended in time, 1 when one did not."""
    command.check(databases=[settings.SOURCE])
    logs.configure(options["log_format"])
    only = options["only"]
    names = [name.strip() for name in only.split(",") if name.strip()] if only else None
    port = options["health_port"]
    return 0 if Keeper(names, health_port=... if port is None else port).run() else 1
