"""The table of stores that ends the demo's steps."""

from __future__ import annotations

from collections.abc import Sequence

HEAD = ("store", "engine", "rows", "size", "lag", "proof")
RIGHT = ("rows", "size", "lag")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay `rows` out under HEAD; numbers are set to the right."""
    lines = [HEAD, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join("  " + _line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if name in RIGHT else cell.ljust(width)
        for name, cell, width in zip(HEAD, cells, widths, strict=True)
    ]
    return "   ".join(padded).rstrip()
