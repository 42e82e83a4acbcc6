"""Test databases: a file beside the database, or memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.db.backends.base.creation import BaseDatabaseCreation

from . import ownership


class DatabaseCreation(BaseDatabaseCreation):
    """Makes and removes the test database; in memory unless TEST['NAME'] names a file."""

    def _get_test_db_name(self) -> str:
        name = self.connection.settings_dict["TEST"]["NAME"]
        return ":memory:" if name is None else str(name)

    def _create_test_db(self, verbosity: int, autoclobber: bool, keepdb: bool = False) -> str:
        name = self._get_test_db_name()
        if keepdb or name.startswith(":memory:"):
            if not keepdb:
                ownership.release(self._path(name))
            return name
        if Path(name).exists():
            if not autoclobber and not self._may_delete(name):
                sys.exit(1)
            self._remove(name)
        return name

    def _may_delete(self, name: str) -> bool:
        answer = input(f"The test database {name} exists. Type 'yes' to delete it: ")
        return answer == "yes"

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        self._remove(test_database_name)

    def _remove(self, name: str) -> None:
        ownership.release(self._path(name))
        if not name.startswith(":memory:"):
            for each in (name, f"{name}.wal"):
                Path(each).unlink(missing_ok=True)

    def _path(self, name: str) -> str:
        if name.startswith(":memory:"):
            return name if name != ":memory:" else f":memory:{self.connection.alias}"
        return str(Path(name).absolute())

    def test_db_signature(self) -> tuple[Any, ...]:
        """Return what tells two test databases apart: each alias has its own memory."""
        name = self._get_test_db_name()
        return (self._path(name),)
