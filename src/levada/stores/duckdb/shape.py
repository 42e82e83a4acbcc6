"""
A table as DuckDB has it: read, changed as a value, written as SQL.

DuckDB cannot alter most things about a table that has an index, a check or a
key. The schema editor therefore reads the table's `Shape`, changes it, creates
a table of the new shape, copies the rows and lets it take the old one's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.utils import ProgrammingError

from . import introspection
from .ddl import check_name, indexed_column, listed, mentions, rename_identifier, uncast


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
    """
    A constraint in SQL, its kind and the columns it names.

    kind: PRIMARY KEY, UNIQUE, CHECK or FOREIGN KEY.
    """

    kind: str
    columns: tuple[str, ...]
    sql: str

    @property
    def name(self) -> str | None:
        """The name a check was given; DuckDB keeps none of other constraints."""
        return check_name(self.sql) if self.kind == "CHECK" else None

    @property
    def is_key(self) -> bool:
        """Whether DuckDB keeps an index for it."""
        return self.kind != "CHECK"

    def names(self, column: str) -> bool:
        """Say whether the constraint is about `column`, among others or alone."""
        if self.kind == "CHECK":
            return mentions(self.sql, column)
        return column.lower() in (each.lower() for each in self.columns)


@dataclass(frozen=True, slots=True)
class IndexShape:
    """An index made by CREATE INDEX. covers: its columns and expressions as SQL."""

    name: str
    unique: bool
    covers: tuple[str, ...]
    comment: str | None = None

    @property
    def columns(self) -> tuple[str | None, ...]:
        """The columns covered, None in place of an expression."""
        return tuple(map(indexed_column, self.covers))

    def mentions(self, column: str) -> bool:
        """Say whether the index covers `column`, by itself or in an expression."""
        return any(mentions(each, column) for each in self.covers)

    def create_sql(self, table: str, quote: Callable[[str], str]) -> str:
        """Return the statement that makes the index on `table`."""
        kind = "UNIQUE INDEX" if self.unique else "INDEX"
        return f"CREATE {kind} {quote(self.name)} ON {quote(table)} ({', '.join(self.covers)})"


@dataclass(frozen=True, slots=True)
class Shape:
    """A table's columns in order, its constraints, its indexes and its comment."""

    table: str
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[IndexShape, ...] = ()
    comment: str | None = None

    def column(self, name: str) -> Column:
        """Return the column called `name`, in any case. Raises KeyError."""
        for column in self.columns:
            if column.name.lower() == name.lower():
                return column
        raise KeyError(name)

    def names(self) -> list[str]:
        """Return the names of the columns, in order."""
        return [column.name for column in self.columns]

    def position(self, name: str) -> int:
        """Return the place of the column called `name`, from 0. Raises KeyError."""
        return self.columns.index(self.column(name))

    def depends_on(self, name: str) -> bool:
        """Say whether a constraint, an index or a generated column depends on a column."""
        return (
            any(each.names(name) for each in self.constraints)
            or any(each.mentions(name) for each in self.indexes)
            or any(each.generated and mentions(each.definition, name) for each in self.columns)
        )

    def with_column(self, name: str, new: Column | None) -> Shape:
        """Replace the column `name` by `new` in its place; None removes it."""
        columns = tuple(
            new if column.name.lower() == name.lower() else column for column in self.columns
        )
        return replace(self, columns=tuple(column for column in columns if column is not None))

    def with_constraints(self, *added: Constraint) -> Shape:
        """Add constraints behind those that are there."""
        return replace(self, constraints=(*self.constraints, *added))

    def without_constraints(self, unwanted: Callable[[Constraint], bool]) -> Shape:
        """Leave out the constraints for which `unwanted` is true."""
        kept = tuple(each for each in self.constraints if not unwanted(each))
        return replace(self, constraints=kept)

    def with_index(self, added: IndexShape) -> Shape:
        """Add an index."""
        return replace(self, indexes=(*self.indexes, added))

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
                replace(each, covers=tuple(map(words, each.covers))) for each in self.indexes
            ),
        )

    def create_sql(self, table: str, quote: Callable[[str], str]) -> str:
        """Return CREATE TABLE under the name `table`."""
        parts = [f"{quote(column.name)} {column.definition}" for column in self.columns]
        parts += [constraint.sql for constraint in self.constraints]
        return f"CREATE TABLE {quote(table)} ({', '.join(parts)})"


def read_shape(cursor: Any, table: str, quote: Callable[[str], str]) -> Shape:
    """Read the shape of `table` from the catalog. Raises ProgrammingError without the table."""
    collations, comment = introspection.table_text(cursor, table)
    columns = []
    for row in introspection.rows(cursor, introspection.COLUMNS, table):
        name, data_type, nullable, default, column_comment, generated, expression = row
        definition = data_type
        if generated:
            definition += f" GENERATED ALWAYS AS ({uncast(expression, data_type)}) VIRTUAL"
        else:
            definition += f" COLLATE {collations[name]}" if name in collations else ""
            definition += f" DEFAULT {default}" if default is not None else ""
            definition += "" if nullable else " NOT NULL"
        columns.append(Column(name, definition, bool(generated), column_comment))
    if not columns:
        raise ProgrammingError(f"Table with name {table} does not exist!")
    constraints = []
    for row in introspection.rows(cursor, introspection.CONSTRAINTS, table):
        _, kind, names, text, *_ = row
        names = tuple(names or ())
        if kind in ("PRIMARY KEY", "UNIQUE"):
            text = f"{kind} ({', '.join(map(quote, names))})"
        constraints.append(Constraint(kind, names, text))
    indexes = tuple(
        IndexShape(name, bool(unique), tuple(listed(sql)), index_comment)
        for name, unique, sql, index_comment in introspection.rows(
            cursor, introspection.INDEXES, table
        )
    )
    return Shape(table, tuple(columns), tuple(constraints), indexes, comment)
