"""How a benchmark says what it found: the machine, the command, tables, two files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sqlite3
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import django
import duckdb

RESULTS = Path(__file__).parent / "results"
PRIVATE = ("--source", "--out")
"""Options that say where something lies on one machine."""


@dataclass
class Table:
    """A heading, column names and rows of text; the first column is left-aligned."""

    heading: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table as Markdown, its columns aligned for a terminal as well."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.columns))]

        def row(cells: Sequence[str]) -> str:
            first, *rest = (
                (cell.rjust if at else cell.ljust)(widths[at]) for at, cell in enumerate(cells)
            )
            return "| " + " | ".join([first, *rest]) + " |"

        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        return "\n".join([f"**{self.heading}**", "", *map(row, [self.columns, rule, *self.rows])])


@dataclass
class Report:
    """
    One benchmark's findings with one source.

    figures: the measured values, by name, as written to the JSON file.
    aims: what was aimed at, what was reached, and whether that is enough.
    """

    name: str
    source: str
    figures: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    aims: list[Sequence[str]] = field(default_factory=list)

    def aim(self, what: str, limit: str, reached: str, met: bool) -> None:
        """Note one aim and what was reached."""
        self.aims.append((what, limit, reached, "yes" if met else "NO"))

    def markdown(self) -> str:
        """Return the whole report as Markdown."""
        tables = list(self.tables)
        if self.aims:
            tables.append(Table("Aims", ("aim", "limit", "reached", "met"), list(self.aims)))
        about = machine()
        head = [
            f"# bench.{self.name}, {self.source} as the source",
            f"`{command()}`",
            "; ".join(f"{key} {value}" for key, value in about.items()),
        ]
        return "\n\n".join([*head, *(table.markdown() for table in tables)]) + "\n"

    def write(self, folder: Path) -> None:
        """Print the report and write <folder>/<name>-<source>.md and .json."""
        text = self.markdown()
        print(text, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}-{self.source.lower()}"
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        whole = {"command": command(), "machine": machine(), **asdict(self)}
        path.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, str]:
    """Say what the figures were taken on."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "load": load,
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "Django": django.get_version(),
        "DuckDB": duckdb.__version__,
        "SQLite": sqlite3.sqlite_version,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def command() -> str:
    """Return the command that repeats this run, without what is private to a machine."""
    private = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in PRIVATE:
        private.add_argument(option)
    _, shown = private.parse_known_args(sys.argv[1:])
    return f"python -m bench.{Path(sys.argv[0]).stem} {shlex.join(shown)}".strip()


def arguments(description: str, *, rows: int) -> argparse.ArgumentParser:
    """Return a parser with the options every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rows", type=int, default=rows, help=f"default {rows:_}")
    parser.add_argument(
        "--source",
        default=os.environ.get("LEVADA_TEST_SOURCE", ""),
        help="postgresql://…, or nothing for SQLite; default: LEVADA_TEST_SOURCE",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    return parser


def vendor(url: str) -> str:
    """Name the source as a reader calls it."""
    return "PostgreSQL" if url else "SQLite"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


median = statistics.median
