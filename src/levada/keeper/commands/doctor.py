"""Examine the whole installation; each finding says what to type."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from ..doctor import NOTE, OK, PROBLEM, examine

_SIGNS = {OK: "✓", NOTE: "·", PROBLEM: "✗"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print one JSON list")


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """Print the findings as they come; 1 if one of them is a problem."""
    styles = {OK: command.style.SUCCESS, NOTE: command.style.WARNING, PROBLEM: command.style.ERROR}
    found = []
    for finding in examine():
        found.append(finding)
        if options["json"]:
            continue
        command.stdout.write(f"{styles[finding.state](_SIGNS[finding.state])} {finding.what}")
        if finding.todo:
            command.stdout.write(f"    {finding.todo}")
    if options["json"]:
        command.stdout.write(json.dumps([asdict(finding) for finding in found], indent=2))
    return 1 if any(finding.state == PROBLEM for finding in found) else 0
