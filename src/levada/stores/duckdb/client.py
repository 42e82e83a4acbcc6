"""
`manage.py dbshell`: SQL on the database, also while another process has its file open.

DuckDB's own command line would have to open the file, which only one process
can, and its package may be of another version than the driver. So there is a
small one here, on Django's own connection.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TextIO

import duckdb
from django.core.management.base import CommandError
from django.db.backends.base.client import BaseDatabaseClient
from django.db.utils import Error

SHOWN_ROWS = 1_000
"""How many rows of a result a terminal shows; a pipe gets all."""

HELP = """\
SQL ends with a semicolon and may take several lines.
.tables          the tables and views
.schema [TABLE]  the statements that make them, or one of them
.quit            the end, as Ctrl-D
"""

TABLES = "SELECT table_name FROM information_schema.tables ORDER BY 1"
"""What `.tables` asks."""

STATEMENTS = """
    SELECT sql FROM (
        SELECT table_name, 0 AS place, sql FROM duckdb_tables() WHERE NOT internal
        UNION ALL SELECT view_name, 0, sql FROM duckdb_views() WHERE NOT internal
        UNION ALL SELECT table_name, 1, sql FROM duckdb_indexes()
    ) WHERE %s IN ('', table_name) ORDER BY table_name, place, sql
"""
"""What `.schema` asks."""

_ROWS = duckdb.ExpectedResultType.QUERY_RESULT
_PIECE = re.compile(
    r"""
    '(?:[^']|'')*' | "(?:[^"]|"")*" | (\$\w*\$).*?\1
    | --[^\n]*(?:\n|$) | /\*.*?(?:\*/|$)
    | ['"].*  # still open
    | .
    """,
    re.DOTALL | re.VERBOSE,
)


class DatabaseClient(BaseDatabaseClient):
    """Reads SQL from `-c`, the terminal or a pipe."""

    executable_name = "duckdb"

    def runshell(self, parameters: Iterable[str]) -> None:
        """
        Run the shell; `-c SQL`, once or several times, runs that and ends.

        A terminal gets tables and goes on after an error; a pipe gets CSV, and
        an error ends it with CommandError.
        """
        parser = argparse.ArgumentParser(prog="manage.py dbshell --", add_help=False)
        parser.add_argument("-c", "--command", action="append", default=[], metavar="SQL")
        options, unknown = parser.parse_known_args(list(parameters))
        if unknown:
            raise CommandError(f"dbshell of DuckDB takes -c SQL, and not {unknown[0]!r}.")
        shell = Shell(self.connection, sys.stdout)
        if options.command:
            for sql in options.command:
                shell.run(sql)
        elif sys.stdin.isatty():
            shell.converse()
        else:
            shell.run(sys.stdin.read())


class Shell:
    """Runs what is typed on one connection and writes what comes out."""

    def __init__(self, connection: Any, out: TextIO) -> None:
        self.connection, self.out = connection, out
        self.write = self._as_table if out.isatty() else self._as_csv

    def converse(self) -> None:
        """Ask, run and ask again, until the end of input or `.quit`."""
        with suppress(ImportError):  # keys and history, where Python has them
            import readline  # noqa: F401
        self.out.write(f"DuckDB {duckdb.__version__}, {self.connection.path}\n{HELP}")
        for text in self._asked():
            try:
                self.run(text)
            except CommandError as error:
                self.out.write(f"{error}\n")
            except KeyboardInterrupt:
                self.out.write("Interrupted.\n")

    def _asked(self) -> Iterator[str]:
        """Yield what the user types, a whole statement or a command at a time."""
        typed = ""
        while True:
            prompt = f"{self.connection.alias}> "
            try:
                typed += input("." * (len(prompt) - 1) + " " if typed else prompt) + "\n"
            except KeyboardInterrupt:
                typed = ""
                self.out.write("\n")
                continue
            except EOFError:
                self.out.write("\n")
                return
            if typed.strip() in (".quit", ".exit"):
                return
            if typed.startswith(".") or is_complete(typed):
                yield typed
                typed = ""

    def run(self, text: str) -> None:
        """Run a command, or statements one after the other. Raises CommandError."""
        try:
            if text.startswith("."):
                self._command(*text.split())
                return
            for statement in duckdb.extract_statements(text):
                self._execute(statement.query, _ROWS in statement.expected_result_type)
        except (Error, duckdb.Error) as error:
            raise CommandError(str(error)) from error

    def _command(self, name: str, table: str = "", *_: str) -> None:
        if name == ".tables":
            self._execute(TABLES)
        elif name == ".schema":
            with self.connection.cursor() as cursor:
                cursor.execute(STATEMENTS, [table])
                self.out.writelines(f"{row[0]}\n" for row in cursor.fetchall())
        else:
            self.out.write(HELP)

    def _execute(self, sql: str, has_rows: bool = True) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            if has_rows and cursor.description is not None:
                self.write([each[0] for each in cursor.description], iter(cursor.fetchone, None))

    def _as_csv(self, names: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
        writer = csv.writer(self.out, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)

    def _as_table(self, names: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
        lines = [names, *(list(map(_text, row)) for row in islice(rows, SHOWN_ROWS))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for number, line in enumerate(lines):
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.out.write("  ".join(cells).rstrip() + "\n")
            if number == 0:
                self.out.write("  ".join("-" * width for width in widths) + "\n")
        more = ", of more" if next(rows, None) is not None else ""
        self.out.write(f"({len(lines) - 1:,} rows{more})\n")


def is_complete(text: str) -> bool:
    """Say whether `text` ends with a semicolon that is no part of a literal or a comment."""
    pieces = [match[0] for match in _PIECE.finditer(text)]
    said = [each for each in pieces if not (each.isspace() or each.startswith(("--", "/*")))]
    return bool(said) and said[-1] == ";"


def _text(value: Any) -> str:
    return "NULL" if value is None else str(value).replace("\n", "\\n")
