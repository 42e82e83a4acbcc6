"""
Compare a store with its source, row by row, while both are being written.

Exit status: 0 equal, 1 something differs, 2 could not tell.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

from ..lending import kept
from ..progress import ProgressBar
from ..verified import verify_and_remember
from ..words import count
from .stores import known_labels, known_store

if TYPE_CHECKING:
    from ...apply.verifying import TableVerification, Verification
    from ...stores.duckdb.comparing import Difference

ERROR_STATUS = 2
SHOWN = 20
"""Differences printed for each table; --json has them all."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("alias", help="the store")
    parser.add_argument(
        "--table", metavar="APP.MODEL", action="append", help="only this table; may be repeated"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long the store may take to catch up with the source first (default: 60)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """Verify and print."""
    alias = known_store(options["alias"], status=ERROR_STATUS)
    labels = known_labels(alias, options["table"], status=ERROR_STATUS)
    progress = ProgressBar(command.stderr, word="Verifying")
    try:
        with kept("relay", f"apply:{alias}"):  # the store must catch up with the source first
            found = verify_and_remember(
                alias, labels, progress=progress, timeout_s=options["timeout"]
            )
    finally:
        progress.close()
    if options["json"]:
        command.stdout.write(found.to_json())
    else:
        command.stdout.write("\n".join(_report(found)))
    return _exit_status(found)


def _exit_status(found: Verification) -> int:
    """Return 1 for a difference that was found, whatever else could not be told."""
    if found.different:
        return 1
    return 0 if found.equal else ERROR_STATUS


def _report(found: Verification) -> Iterator[str]:
    yield f"{found.alias} at {found.position or 'no position'}, {found.seconds:.1f} s"
    width = max((len(table.label) for table in found.tables), default=0)
    for table in found.tables:
        yield f"  {table.label:<{width}}  {_rows(table)}  {_verdict(table)}"
        for difference in table.differences[:SHOWN]:
            yield f"      {_difference(difference)}"
        if table.different > SHOWN:
            yield f"      … and {table.different - SHOWN:,} more (see --json)"
    if found.undecided:
        yield f"Could not tell: {found.undecided}"
    if found.different:
        yield f"To mend it: manage.py levada rebuild {found.alias}"


def _difference(found: Difference) -> str:
    """Write `changed id=42: country is 'PT' in the source, 'ES' in the store`."""
    key = " ".join(f"{name}={value}" for name, value in found.key.items())
    columns = ", ".join(
        f"{name} is {_value(source)} in the source, {_value(store)} in the store"
        for name, (source, store) in found.columns.items()
    )
    return f"{found.kind} {key}" + (f": {columns}" if columns else "")


def _value(text: str | None) -> str:
    return "NULL" if text is None else repr(text)


def _rows(table: TableVerification) -> str:
    if table.source_rows == table.store_rows:
        return count(table.source_rows, "row")
    return f"{count(table.source_rows, 'row')} in the source, {table.store_rows:,} in the store"


def _verdict(table: TableVerification) -> str:
    if table.problem:
        return table.problem
    return f"{count(table.different, 'difference')}" if table.different else "equal ✓"
