"""Rows that refer to rows which are not there: DuckDB's tables of ours have no foreign keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from django.apps import apps
from django.db.utils import IntegrityError

DANGLING = """
    SELECT {key}, {column} FROM {table} AS referring
    WHERE {column} IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM {to_table} AS referred WHERE referred.{to_column} = referring.{column}
    )
    LIMIT 1
"""
"""One row whose reference leads nowhere."""


def check(connection: Any, table_names: Collection[str] | None = None) -> None:
    """
    Raise IntegrityError naming a row that refers to one that is not there.

    table_names: which tables' rows are looked at, None for all. A reference
    with `db_constraint=False`, or to a table of another database, may dangle.
    """
    there = set(connection.introspection.table_names())
    for field in _references(there if table_names is None else there.intersection(table_names)):
        target = field.target_field
        if target.model._meta.db_table in there:
            _check_field(connection, field, target)


def _references(tables: Collection[str]) -> Iterator[Any]:
    for model in apps.get_models(include_auto_created=True):
        meta = model._meta
        if meta.db_table in tables and not meta.proxy:
            for field in meta.local_concrete_fields:
                if field.remote_field is not None and getattr(field, "db_constraint", False):
                    yield field


def _check_field(connection: Any, field: Any, target: Any) -> None:
    quote, meta = connection.ops.quote_name, field.model._meta
    key = meta.pk_fields[0]
    sql = DANGLING.format(
        key=quote(key.column),
        column=quote(field.column),
        table=quote(meta.db_table),
        to_table=quote(target.model._meta.db_table),
        to_column=quote(target.column),
    )
    with connection.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
    if row is not None:
        raise IntegrityError(
            f"The row in table {meta.db_table!r} with primary key {row[0]!r} has an invalid "
            f"foreign key: {meta.db_table}.{field.column} contains a value {row[1]!r} that does "
            f"not have a corresponding value in {target.model._meta.db_table}.{target.column}."
        )
