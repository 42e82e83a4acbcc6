"""
What emptying the source leaves: Levada's own tables, and ids that are never handed out twice.

`manage.py flush` deletes the rows of every table Django knows. The triggers
capture that as what it is, in the same transaction. Were the outbox emptied
with the rest, its deletions would be lost and its ids start again, below the
position that relay and stores have come to: they would take what follows for
what they have.

So each connection to the source answers `sql_flush` without our tables; the
`flush` and `sqlflush` commands ask nothing else. A TransactionTestCase ends
by the same command, and the next test must not find the records of this one.
Django then asks not to reset sequences, which no command does: the tables are
emptied too, after the others, and the ids go on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from django.apps import apps

from .plan import REGISTRY, quoted


def spare_own_tables(connection: Any) -> None:
    """Have `connection` leave Levada's tables out of what it flushes; does so once."""
    operations = connection.ops
    if "sql_flush" not in vars(operations):
        operations.sql_flush = partial(_sql_flush, operations.sql_flush)
        operations.sequence_reset_by_name_sql = partial(
            _sequence_reset, operations.sequence_reset_by_name_sql
        )


def _sql_flush(
    original: Any,
    style: Any,
    tables: Collection[str],
    *,
    reset_sequences: bool = False,
    allow_cascade: bool = False,
) -> list[str]:
    own = _own_tables()
    others = [table for table in tables if table not in own]
    statements: list[str] = original(
        style, others, reset_sequences=reset_sequences, allow_cascade=allow_cascade
    )
    if not reset_sequences:
        # The shapes stay: they say what the triggers were made for, and those stay as well.
        emptied = sorted(own.intersection(tables) - {REGISTRY})
        statements += [f"DELETE FROM {quoted(table)};" for table in emptied]
    return statements


def _sequence_reset(original: Any, style: Any, sequences: Sequence[dict[str, Any]]) -> list[str]:
    own = _own_tables()
    statements: list[str] = original(
        style, [each for each in sequences if each["table"] not in own]
    )
    return statements


def _own_tables() -> frozenset[str]:
    return frozenset(model._meta.db_table for model in apps.get_app_config("levada").get_models())
