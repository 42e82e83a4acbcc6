"""
The demo: a whole project made, filled, replicated, proven equal and served, in one command.

    python -m levada demo

It runs the reference project `almanac`, which the wheel carries too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run the demo with the words after `levada demo`; return the exit status."""
    from .options import parse

    options = parse(arguments)
    try:
        import duckdb  # noqa: F401
        import pyarrow  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        print(f"The demo needs {error.name}. Run: pip install 'levada[demo]'", file=sys.stderr)
        return 1
    from .show import run

    return run(options)
