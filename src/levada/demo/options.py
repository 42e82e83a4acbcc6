"""What can be asked of the demo on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

DEFAULT_PORT = 8000
DEFAULT_ROWS = 1_000_000
MOST_ROWS = 2_000_000


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the words after `levada demo`; leaves with status 2 for what it cannot read."""
    parser = argparse.ArgumentParser(
        prog="python -m levada demo",
        description="Make a project, fill it, build its replica, prove it equal, and serve it.",
    )
    parser.add_argument(
        "--rows",
        type=rows,
        default=DEFAULT_ROWS,
        metavar="N",
        help=f"synthetic events beside the 7,022 real ones, up to {MOST_ROWS:,} "
        f"(default {DEFAULT_ROWS:,})",
    )
    parser.add_argument(
        "--port",
        type=port,
        metavar="N",
        help=f"where to serve on 127.0.0.1 (default {DEFAULT_PORT}, or the next free one)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument(
        "--check",
        action="store_true",
        help="do everything once, print the table, and exit with 0 only if all is verified",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(".levada-demo"),
        metavar="DIR",
        help="where the databases lie (default .levada-demo); a second run goes on with them",
    )
    return parser.parse_args(arguments)


def rows(text: str) -> int:
    """Read a number of rows; thousands may be set off by commas or underscores."""
    number = _number(text.replace(",", ""), "a number of rows")
    if not 0 <= number <= MOST_ROWS:
        raise argparse.ArgumentTypeError(f"{number:,} is not between 0 and {MOST_ROWS:,}")
    return number


def port(text: str) -> int:
    """Read a port; 0 takes any free one."""
    number = _number(text, "a port")
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{number} is not between 0 and 65535")
    return number


def _number(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
