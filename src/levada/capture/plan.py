"""The values that installer and vendors exchange about one table's capture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from levada.tables import TableSpec

VERSION = 1
"""Raised when the generated SQL changes, so that the next migrate replaces the triggers."""

DRIFTED = "drifted"
"""The fingerprint of a change whose table no longer has the columns its triggers were made for."""

OUTBOX, REGISTRY = "levada_outbox", "levada_table"
PREFIX = "levada_capture_"


@dataclass(frozen=True, slots=True)
class Table:
    """
    A table as the database has it now.

    columns: name to the database's own type name. schema: '' on SQLite.
    kind: 'table', 'view' or what else the vendor calls it. parts: on
    PostgreSQL the partitions and inheriting tables, as (schema, name).
    """

    name: str
    columns: Mapping[str, str]
    schema: str = ""
    kind: str = "table"
    parts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    The capture one table should have.

    pieces: what to compare with the database, name to definition.
    create: name to the SQL that makes the piece, in order.
    """

    spec: TableSpec
    pieces: Mapping[str, str]
    create: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """The capture one table has: pieces to compare, and name to the SQL that drops the piece."""

    pieces: dict[str, str] = field(default_factory=dict)
    drop: dict[str, str] = field(default_factory=dict)


def present(spec: TableSpec, table: Table) -> TableSpec | None:
    """
    Return `spec` with the columns that `table` really has, None if a key column is missing.

    In the middle of a migration the table is older or younger than the models.
    """
    if not set(spec.key) <= set(table.columns):
        return None
    return replace(
        spec,
        columns=tuple(column for column in spec.columns if column.name in table.columns),
        excluded=tuple(name for name in spec.excluded if name in table.columns),
    )


def literal(text: str) -> str:
    """Write `text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Write `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def joined(terms: list[str], operator: str, width: int = 30) -> str:
    """
    Join `terms` by an associative operator into a shallow tree.

    SQLite refuses expressions deeper than 1,000, which a flat chain over a
    wide table would reach.
    """
    if len(terms) <= width:
        return f"\n    {operator} ".join(terms)
    groups = [terms[at : at + width] for at in range(0, len(terms), width)]
    inner = [f"({joined(group, operator, width)})" for group in groups]
    return joined([each + "\n" for each in inner[:-1]] + inner[-1:], operator, width)
