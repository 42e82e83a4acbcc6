"""
The source database as relay, snapshot and verify see it: `open_source(alias)`.

`levada.contracts.Source` is what each vendor's source promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connections

from ..conf import settings
from ..errors import UnsupportedVendor

if TYPE_CHECKING:
    from ..contracts import Source

__all__ = ["open_source"]

COLUMNS = (
    'topic, label, op, key, before, after, fingerprint, "transaction", id, changed_at, context'
)
"""The outbox's columns in the order of `levada.changes.OutboxRow`."""

TRANSACTION, ID = 7, 8
"""Where they stand in a row."""


def open_source(alias: str | None = None, *, inside: bool = False) -> Source:
    """
    Return the source of the database `alias`, by default LEVADA["SOURCE"].

    It reads the alias's settings when it connects, so that in a test it
    follows to the test database. Its connections are its own, unless
    `inside`: then it works through Django's connection of the calling
    thread, inside the transaction that is open there, which is what a
    TestCase needs; an SQLite database in memory has no other way in.
    Raises UnsupportedVendor for a database that is neither SQLite nor PostgreSQL.
    """
    alias = alias or settings.SOURCE
    connection = connections[alias]
    if connection.vendor not in ("sqlite", "postgresql"):
        raise UnsupportedVendor(
            f"{alias!r} is {connection.vendor}; changes are captured on SQLite and PostgreSQL. "
            f"Set LEVADA['SOURCE'] to the alias of such a database."
        )
    if inside or (connection.vendor == "sqlite" and in_memory(connection.settings_dict["NAME"])):
        from .inside import InsideSource

        return InsideSource(alias)
    if connection.vendor == "sqlite":
        from .sqlite import SQLiteSource

        return SQLiteSource(alias)
    from .postgresql import PostgreSQLSource

    return PostgreSQLSource(alias)


def in_memory(name: object) -> bool:
    """Say whether an SQLite database of this name lives in the memory of its process."""
    text = str(name)
    return text == ":memory:" or (
        text.startswith("file:") and ("mode=memory" in text or text.startswith("file::memory:"))
    )
