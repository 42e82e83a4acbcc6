"""
What each Django connection to the source carries: a watch over its statements.

The watch is one of Django's execute wrappers. It sees every statement, and for
all but a few it does nothing: about 0.3 µs. What it looks for:

- DDL on a captured table. On SQLite triggers are dropped before it (DROP
  COLUMN fails under them) and made again after it; on PostgreSQL they are
  refreshed after it. So a RunPython between two schema operations is captured
  with the columns the table has at that moment.
- The first statement of a transaction. On SQLite, which has no transaction
  numbers, the triggers take one from the connection; other clients have none.
- On PostgreSQL, a surrounding `levada.capture.context()`, which set_config()
  hands over once a transaction. On SQLite the triggers ask the connection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction

from levada.conf import settings
from levada.errors import ConfigurationError

from . import installer, sqlite
from .context import current_context
from .flushing import spare_own_tables

_DDL = re.compile(r"\b(?:alter|create|drop)\s+(?:\w+\s+){0,2}?table\b", re.IGNORECASE)
_HEADS = frozenset(("ALT", "CRE", "DRO", "alt", "cre", "dro", "Alt", "Cre", "Dro"))
_WRITES = re.compile(r"\s*(?:insert|update|delete|merge|with|truncate)\b", re.IGNORECASE)
_PASSIVE = re.compile(r"\s*(?:select|savepoint|release|rollback|set|show)\b", re.IGNORECASE)

_FOREIGN_TRIGGER = """
SELECT 1 FROM sqlite_master
WHERE type = 'trigger' AND name NOT LIKE 'levada~_capture~_%' ESCAPE '~' LIMIT 1
"""


def watch(connection: Any) -> None:
    """Put the watch on `connection` if it leads to the source; called at each new connection."""
    if connection.alias != settings.SOURCE:
        return
    kinds = {"sqlite": SQLiteWatch, "postgresql": PostgreSQLWatch}
    kind = kinds.get(connection.vendor)
    if kind is None:
        return
    spare_own_tables(connection)
    for wrapper in connection.execute_wrappers:
        if isinstance(wrapper, Watch):
            wrapper.connected()
            return
    connection.execute_wrappers.append(kind(connection))


def watch_open_connections() -> None:
    """Put the watch on connections that were opened before the app was ready."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            watch(connection)


class Watch:
    """An execute wrapper on one connection to the source."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.connected()

    def connected(self) -> None:
        """Prepare the new session of the connection."""

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        raise NotImplementedError

    def tables_of(self, sql: str) -> list[str]:
        """Return the captured tables that the DDL `sql` may be about."""
        if not _DDL.search(sql):
            return []
        try:
            names = installer.captured_tables(self.connection.alias)
        except ConfigurationError:
            return []  # `check` and post_migrate say so; DDL of other tables must go on
        return [name for name in names if name in sql]


class SQLiteWatch(Watch):
    """Numbers transactions, hands over the context, keeps triggers out of the way of DDL."""

    def connected(self) -> None:
        self.number: int | None = None
        self.changing_tables = False
        raw = self.connection.connection
        # A schema that trusts nobody would refuse a trigger that calls our functions.
        if raw.execute("PRAGMA trusted_schema").fetchone() != (0,):
            raw.create_function(sqlite.TRANSACTION, 0, self._transaction)
            raw.create_function(sqlite.CONTEXT, 0, current_context)
        # REPLACE deletes rows without a word unless triggers may recurse. A project's own
        # triggers may count on not recursing, so only where there are none.
        if raw.execute(_FOREIGN_TRIGGER).fetchone() is None:
            raw.execute("PRAGMA recursive_triggers = ON")

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        raw = self.connection.connection
        if raw is not None and not raw.in_transaction:
            self.number = None
        if sql[:3] in _HEADS or not sql[:1].isalpha():
            tables = () if self.changing_tables else self.tables_of(sql)
            if tables:
                return self.change_tables(tables, execute, sql, params, many, context)
        return execute(sql, params, many, context)

    def change_tables(self, tables: list[str], execute: Callable[..., Any], *args: Any) -> Any:
        """Run DDL with the triggers of `tables` away, all in one transaction."""
        alias = self.connection.alias
        self.changing_tables = True
        try:
            with transaction.atomic(using=alias, savepoint=False):
                installer.drop_triggers(alias, tables)
                try:
                    return execute(*args)
                finally:
                    if not self.connection.needs_rollback:
                        installer.install(alias, only=tables)
        finally:
            self.changing_tables = False

    def _transaction(self) -> int:
        """
        Return the number of the transaction that is writing, in µs since 1970.

        Drawn at its first captured row, while it holds the one write lock, so
        numbers rise with the order of commits.
        """
        if self.number is None:
            self.number = time.time_ns() // 1_000
        return self.number


class PostgreSQLWatch(Watch):
    """Hands over the context and refreshes triggers after DDL."""

    def connected(self) -> None:
        # What this transaction was told: None for nothing yet, "" for no context any more.
        self.sent: str | None = None
        self.handing_over = False

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        if type(sql) is str and (sql[:3] in _HEADS or not sql[:1].isalpha()) and _DDL.search(sql):
            result = execute(sql, params, many, context)
            tables = self.tables_of(sql)
            if tables and not self.connection.needs_rollback:
                installer.install(self.connection.alias, only=tables)
            return result
        wanted = current_context()
        if (wanted is None and self.sent is None) or self.handing_over:
            return execute(sql, params, many, context)
        return self.execute_in_context(wanted, execute, sql, params, many, context)

    def execute_in_context(
        self, wanted: str | None, execute: Callable[..., Any], sql: Any, *args: Any
    ) -> Any:
        """Set or clear the transaction's context before a statement that may write."""
        text = sql if isinstance(sql, str) else ""
        if self.connection.connection.info.transaction_status == 0:  # idle: a new transaction
            self.sent = None
        if _PASSIVE.match(text):
            if text.lstrip()[:8].lower() == "rollback":
                self.sent = "?"  # what was sent after the savepoint is undone
            return execute(sql, *args)
        if self.connection.in_atomic_block or not self.connection.get_autocommit():
            self.hand_over(wanted)
        elif wanted is not None and _WRITES.match(text):
            with transaction.atomic(using=self.connection.alias):
                self.hand_over(wanted)
                return execute(sql, *args)
        return execute(sql, *args)

    def hand_over(self, wanted: str | None) -> None:
        """Tell the database whose changes follow, until the end of this transaction."""
        text = wanted or ""
        if text == (self.sent or ""):
            return
        self.handing_over = True
        try:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT set_config('levada.context', %s, true)", [text])
            self.sent = text
        finally:
            self.handing_over = False
