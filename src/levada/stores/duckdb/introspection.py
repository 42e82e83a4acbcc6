"""What tables, columns and constraints a DuckDB database has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.introspection import BaseDatabaseIntrospection
from django.db.models import Index
from django.db.utils import ProgrammingError

from .ddl import check_name, collations, indexed_column, is_conditional, listed
from .inspected import DECIMAL, FIELDS, field_name
from .parameters import unquoted


class FieldInfo(NamedTuple):
    """Django's `FieldInfo` with what `inspectdb` asks of the larger databases."""

    name: str
    type_code: str
    display_size: int | None
    internal_size: int | None
    precision: int | None
    scale: int | None
    null_ok: bool
    default: str | None
    collation: str | None
    is_autofield: bool
    comment: str | None


class TableInfo(NamedTuple):
    """Django's `TableInfo` with the comment. type: t for a table, v for a view."""

    name: str
    type: str
    comment: str | None


_SEQUENCE = re.compile(r"""^nextval\('(?:[^']*\.)?"?((?:[^'"]|''|"")+)"?'\)$""")

TABLES = """
    SELECT table_name, 't', comment FROM duckdb_tables()
    WHERE database_name = current_database() AND schema_name = current_schema() AND NOT temporary
    UNION ALL
    SELECT view_name, 'v', comment FROM duckdb_views()
    WHERE database_name = current_database() AND schema_name = current_schema()
        AND NOT internal AND NOT temporary
    ORDER BY 1
"""
"""Every table and view of the current schema: name, kind and comment."""

COLUMNS = """
    SELECT column_name, data_type, is_nullable, column_default, comment, is_generated,
        generation_expression
    FROM duckdb_columns()
    WHERE database_name = current_database() AND schema_name = current_schema()
        AND lower(table_name) = lower(?)
    ORDER BY column_index
"""
"""The columns of one table, in order."""

CONSTRAINTS = """
    SELECT constraint_name, constraint_type, constraint_column_names, constraint_text,
        referenced_table, referenced_column_names
    FROM duckdb_constraints()
    WHERE database_name = current_database() AND schema_name = current_schema()
        AND lower(table_name) = lower(?) AND constraint_type <> 'NOT NULL'
    ORDER BY constraint_index
"""
"""The constraints of one table as they were declared, NOT NULL left out."""

REFERRING = """
    SELECT DISTINCT table_name FROM duckdb_constraints()
    WHERE database_name = current_database() AND schema_name = current_schema()
        AND constraint_type = 'FOREIGN KEY' AND lower(referenced_table) = lower(?)
"""
"""The tables whose foreign keys refer to one table."""

TABLE_TEXT = """
    SELECT sql, comment FROM duckdb_tables()
    WHERE database_name = current_database() AND schema_name = current_schema()
        AND lower(table_name) = lower(?)
"""
"""The statement that makes a table, and its comment."""

INDEXES = """
    SELECT index_name, is_unique, sql, comment
    FROM duckdb_indexes()
    WHERE database_name = current_database() AND schema_name = current_schema()
        AND lower(table_name) = lower(?)
    ORDER BY index_name
"""
"""The indexes of one table made by CREATE INDEX, with the statement that makes them."""


class DatabaseIntrospection(BaseDatabaseIntrospection):
    """Reads DuckDB's catalog."""

    data_types_reverse = FIELDS
    _auto_fields = {
        "BigIntegerField": "BigAutoField",
        "IntegerField": "AutoField",
        "SmallIntegerField": "SmallAutoField",
    }

    def get_field_type(self, data_type: str, description: Any) -> str:
        """Return the Django field of a column. Raises KeyError for a type Django has none for."""
        field_type = field_name(data_type)
        if description.is_autofield:
            return self._auto_fields.get(field_type, field_type)
        return field_type

    def get_table_list(self, cursor: Any) -> list[TableInfo]:
        """Return the tables and views of the current schema."""
        cursor.execute(TABLES)
        return [TableInfo(*row) for row in cursor.fetchall()]

    def get_table_description(self, cursor: Any, table_name: str) -> list[Any]:
        """Return a `FieldInfo` for each column. Raises ProgrammingError without the table."""
        described = rows(cursor, COLUMNS, table_name)
        if not described:
            raise ProgrammingError(f"Table with name {table_name} does not exist!")
        collation = table_text(cursor, table_name)[0]
        return [_field_info(row, collation.get(row[0])) for row in described]

    def get_sequences(
        self, cursor: Any, table_name: str, table_fields: Sequence[Any] = ()
    ) -> list[dict[str, str]]:
        """Return the sequences that the table's columns take their default from."""
        found = []
        for name, _, _, default, *_ in rows(cursor, COLUMNS, table_name):
            sequence = sequence_of(default)
            if sequence:
                found.append({"name": sequence, "table": table_name, "column": name})
        return found

    def get_relations(self, cursor: Any, table_name: str) -> dict[str, tuple[str, str]]:
        """Return the foreign keys of one column: ours have none, but other clients' tables may."""
        found = {}
        for _, kind, columns, _, table, referenced in rows(cursor, CONSTRAINTS, table_name):
            if kind == "FOREIGN KEY" and len(columns) == 1:
                found[columns[0]] = (referenced[0], table)
        return found

    def get_primary_key_columns(self, cursor: Any, table_name: str) -> list[str] | None:
        """Return the primary key's columns, None where there is none."""
        for _, kind, columns, *_ in rows(cursor, CONSTRAINTS, table_name):
            if kind == "PRIMARY KEY":
                return list(columns)
        return None

    def get_primary_key_column(self, cursor: Any, table_name: str) -> str | None:
        """Return the primary key's first column, None where there is none."""
        columns = self.get_primary_key_columns(cursor, table_name)
        return columns[0] if columns else None

    def get_constraints(self, cursor: Any, table_name: str) -> dict[str, dict[str, Any]]:
        """Return constraints and indexes by name."""
        found: dict[str, dict[str, Any]] = {}
        for row in rows(cursor, CONSTRAINTS, table_name):
            name, kind, columns, text, referred_table, referred = row
            known = check_name(text) if kind == "CHECK" else None
            found[_free(known or name or text, found)] = {
                "columns": list(dict.fromkeys(columns or ())),
                "primary_key": kind == "PRIMARY KEY",
                "unique": kind in ("PRIMARY KEY", "UNIQUE"),
                "foreign_key": (referred_table, referred[0]) if kind == "FOREIGN KEY" else None,
                "check": kind == "CHECK",
                "index": False,
                "definition": text,
            }
        for name, unique, sql, _ in rows(cursor, INDEXES, table_name):
            covers = listed(sql)
            columns = list(map(indexed_column, covers))
            found[name] = {
                "columns": columns if any(columns) else [],
                "orders": ["ASC"] * len(columns) if any(columns) else [],
                "primary_key": False,
                # Under a condition the columns are not: inspectdb would call them unique.
                "unique": bool(unique) and not is_conditional(covers[0]),
                "foreign_key": None,
                "check": False,
                "index": True,
                "type": Index.suffix,
                "definition": sql,
            }
        return found


def sequence_of(default: str | None) -> str | None:
    """Return the sequence a column's default draws from, None for any other default."""
    match = _SEQUENCE.match(default or "")
    return match[1].replace('""', '"').replace("''", "'") if match else None


def table_text(cursor: Any, table_name: str) -> tuple[dict[str, str], str | None]:
    """Return what only the table's own statement tells: collations by column; and its comment."""
    for sql, comment in rows(cursor, TABLE_TEXT, table_name):
        return collations(sql), comment
    return {}, None


def rows(cursor: Any, sql: str, table_name: str) -> list[tuple[Any, ...]]:
    """Ask the catalog one of the questions above about one table."""
    cursor.execute(sql.replace("?", "%s"), [unquoted(table_name)])
    return cursor.fetchall()


def _free(name: str, taken: dict[str, Any]) -> str:
    """Return `name`, numbered if another constraint has it."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _field_info(row: Sequence[Any], collation: str | None) -> Any:
    name, data_type, nullable, default, comment, *_ = row
    decimal = DECIMAL.fullmatch(data_type)
    sequence = sequence_of(default)
    return FieldInfo(
        name=name,
        type_code=data_type,
        display_size=None,
        internal_size=None,
        precision=int(decimal[1]) if decimal else None,
        scale=int(decimal[2]) if decimal else None,
        null_ok=nullable,
        default=None if sequence else default,
        collation=collation,
        is_autofield=sequence is not None,
        comment=comment,
    )
