"""The two ends of the channel: which databases they are, and whether the replica is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from levada.errors import StoreError

SOURCE, REPLICA = "default", "analytics"
NAMES = {"sqlite3": "SQLite", "postgresql": "PostgreSQL", "duckdb": "DuckDB"}


class NoReplica(StoreError):
    """The replica was deleted and not built again yet."""


class Gate:
    """
    Lets readers to the replica while there is one, and nobody while it is deleted and rebuilt.

    Opening a database that is not there creates it. A reader that looked for
    the file just before it was deleted would bring back an empty one, so
    deleting waits for the readers, and later ones are turned away.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closed = False
        self._readers = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Be a reader for as long as the block lasts. Raises NoReplica."""
        with self._changed:
            if self._closed or not replica_path().exists():
                raise NoReplica("There is no replica to ask. Press Rebuild.")
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Turn away new readers and wait until those inside have left."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._readers == 0)

    def open(self) -> None:
        """Let readers in again."""
        with self._changed:
            self._closed = False


def engine(alias: str) -> str:
    """Return the plain name of the database behind `alias`."""
    last = settings.DATABASES[alias]["ENGINE"].rpartition(".")[2]
    return NAMES.get(last, last)


def replica_path() -> Path:
    """Return where the replica's file lies or would lie."""
    return Path(settings.DATABASES[REPLICA]["NAME"])


gate = Gate()
"""The one gate of this process."""
