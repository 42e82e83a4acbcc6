"""
A table as DuckDB has it: read, changed as a value, written as SQL.

DuckDB cannot alter most things about a table that has an index, a check or a
key. The schema editor therefore reads the table's `Shape`, changes it, creates
a table of the new shape, copies the rows and lets it take the old one's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import introspection

_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\w+""")


@dataclass(frozen=True, slots=True)
class Column:
    """
    One column: its SQL definition without key, unique and check, which are the table's.

    generated: it has no value of its own to copy.
    """

    name: str
    definition: str
    generated: bool = False
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Constraint:
    """A constraint in SQL, its kind (PRIMARY KEY, UNIQUE, CHECK) and the columns it names."""

    kind: str
    columns: tuple[str, ...]
    sql: str


@dataclass(frozen=True, slots=True)
class IndexShape:
    """An index: its name, the columns or expressions it covers, the statement that makes it."""

    name: str
    columns: tuple[str, ...]
    unique: bool
    sql: str


@dataclass(frozen=True, slots=True)
class Shape:
    """A table's columns in order, its constraints and its indexes."""

    table: str
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[IndexShape, ...] = field(default=())

    def column(self, name: str) -> Column:
        """Return the column called `name`, in any case. Raises KeyError."""
        for column in self.columns:
            if column.name.lower() == name.lower():
                return column
        raise KeyError(name)

    def with_column(self, name: str, new: Column | None) -> Shape:
        """Replace the column `name` by `new` in its place; None removes it."""
        columns = tuple(
            new if column.name.lower() == name.lower() else column for column in self.columns
        )
        return replace(self, columns=tuple(column for column in columns if column is not None))

    def without_constraints(self, unwanted: Callable[[Constraint], bool]) -> Shape:
        """Leave out the constraints for which `unwanted` is true."""
        kept = tuple(each for each in self.constraints if not unwanted(each))
        return replace(self, constraints=kept)

    def without_indexes(self, unwanted: Callable[[IndexShape], bool]) -> Shape:
        """Leave out the indexes for which `unwanted` is true."""
        return replace(self, indexes=tuple(each for each in self.indexes if not unwanted(each)))

    def renamed(self, old: str, new: str) -> Shape:
        """Rename a column wherever constraints, indexes and generated columns mention it."""

        def names(columns: Sequence[str]) -> tuple[str, ...]:
            return tuple(new if each.lower() == old.lower() else each for each in columns)

        def words(sql: str) -> str:
            return rename_identifier(sql, old, new)

        return replace(
            self,
            columns=tuple(
                replace(each, definition=words(each.definition)) if each.generated else each
                for each in self.columns
            ),
            constraints=tuple(
                replace(each, columns=names(each.columns), sql=words(each.sql))
                for each in self.constraints
            ),
            indexes=tuple(
                replace(each, columns=names(each.columns), sql=_rename_in_index(each.sql, old, new))
                for each in self.indexes
            ),
        )

    def create_sql(self, table: str, quote: Callable[[str], str]) -> str:
        """Return CREATE TABLE under the name `table`."""
        parts = [f"{quote(column.name)} {column.definition}" for column in self.columns]
        parts += [constraint.sql for constraint in self.constraints]
        return f"CREATE TABLE {quote(table)} ({', '.join(parts)})"


def read_shape(cursor: Any, table: str, quote: Callable[[str], str]) -> Shape:
    """Read the shape of `table` from the catalog."""
    columns = []
    for row in introspection._rows(cursor, introspection.COLUMNS, table):
        name, data_type, nullable, default, comment, generated, expression = row
        definition = data_type
        if generated:
            definition += f" GENERATED ALWAYS AS ({expression}) VIRTUAL"
        else:
            definition += f" DEFAULT {default}" if default is not None else ""
            definition += "" if nullable else " NOT NULL"
        columns.append(Column(name, definition, bool(generated), comment))
    constraints = []
    for _, kind, names, text in introspection._rows(cursor, introspection.CONSTRAINTS, table):
        names = tuple(names or ())
        if kind != "CHECK":
            text = f"{kind} ({', '.join(map(quote, names))})"
        constraints.append(Constraint(kind, names, text))
    indexes = tuple(
        IndexShape(name, tuple(introspection.index_columns(expressions)), bool(unique), sql)
        for name, unique, expressions, sql in introspection._rows(
            cursor, introspection.INDEXES, table
        )
    )
    return Shape(table, tuple(columns), tuple(constraints), indexes)


def rename_identifier(sql: str, old: str, new: str) -> str:
    """Rename the identifier `old` in `sql`; string literals keep what they say."""
    quoted = '"{}"'.format(new.replace('"', '""'))

    def swap(match: re.Match[str]) -> str:
        token = match[0]
        name = token[1:-1].replace('""', '"') if token.startswith('"') else token
        return quoted if name.lower() == old.lower() else token

    return _TOKEN.sub(swap, sql)


def _rename_in_index(sql: str, old: str, new: str) -> str:
    """Rename a column in CREATE INDEX, but not in the names of index and table."""
    head, opening, rest = sql.partition("(")
    return head + opening + rename_identifier(rest, old, new)
