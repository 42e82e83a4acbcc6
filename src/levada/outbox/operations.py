"""A migration operation for what one database vendor alone needs."""

from __future__ import annotations

from typing import Any

from django.db import migrations

POSTGRESQL_SQL = """
CREATE INDEX levada_outbox_transaction ON levada_outbox (transaction, id);
ALTER TABLE levada_outbox ALTER COLUMN transaction SET NOT NULL;
ALTER TABLE levada_outbox SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000
)
"""
"""
The relay finds rows by their transaction; a row without one would never be
relayed. A queue table turns over completely, so vacuum by count, not by share.
"""

POSTGRESQL_REVERSE_SQL = """
ALTER TABLE levada_outbox RESET (
    autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_analyze_scale_factor, autovacuum_analyze_threshold
);
ALTER TABLE levada_outbox ALTER COLUMN transaction DROP NOT NULL;
DROP INDEX levada_outbox_transaction
"""


class RunSQLOn(migrations.RunSQL):
    """RunSQL on databases of one vendor, nothing on the others."""

    def __init__(self, vendor: str, sql: str, reverse_sql: str) -> None:
        super().__init__(sql, reverse_sql)
        self.vendor = vendor

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return self.__class__.__qualname__, [self.vendor, self.sql, self.reverse_sql], {}

    def database_forwards(self, app_label, schema_editor, from_state, to_state):  # type: ignore[no-untyped-def]
        if schema_editor.connection.vendor == self.vendor:
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):  # type: ignore[no-untyped-def]
        if schema_editor.connection.vendor == self.vendor:
            super().database_backwards(app_label, schema_editor, from_state, to_state)
