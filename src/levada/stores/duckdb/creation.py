"""
Test databases: memory, or a file of their own; a clone of each for every worker of `--parallel`.

A database in memory cannot be handed to another process: each worker makes
its own, by the same migrations. A file is closed and copied.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from django.db.backends.base.creation import BaseDatabaseCreation

from . import ownership


class DatabaseCreation(BaseDatabaseCreation):
    """Makes and removes the test database; in memory unless TEST['NAME'] names a file."""

    def _get_test_db_name(self) -> str:
        name = str(self.connection.settings_dict["TEST"]["NAME"] or ":memory:")
        # With the alias in it, a mirror of this database finds the same memory.
        return name if name != ":memory:" else f":memory:{self.connection.alias}"

    def _create_test_db(self, verbosity: int, autoclobber: bool, keepdb: bool = False) -> str:
        name = self._get_test_db_name()
        if keepdb:
            return name
        if not _in_memory(name) and Path(name).exists():
            if verbosity >= 1:
                shown = self._get_database_display_str(verbosity, name)
                self.log(f"Destroying old test database for alias {shown}...")
            if not autoclobber and not self._may_delete(name):
                self.log("Tests cancelled.")
                sys.exit(1)
        self._remove(name)
        return name

    def _may_delete(self, name: str) -> bool:
        answer = input(f"The test database {name} exists. Type 'yes' to delete it: ")
        return answer == "yes"

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        self._remove(test_database_name)

    def get_test_db_clone_settings(self, suffix: str) -> dict[str, Any]:
        """Return the settings of the clone `suffix`; one in memory has the same in its process."""
        settings = self.connection.settings_dict
        name = str(settings["NAME"])
        if _in_memory(name):
            return dict(settings)
        path = Path(name)
        return {**settings, "NAME": str(path.with_name(f"{path.stem}_{suffix}{path.suffix}"))}

    def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> None:
        name = str(self.connection.settings_dict["NAME"])
        if _in_memory(name):
            return
        clone = self.get_test_db_clone_settings(suffix)["NAME"]
        if keepdb and Path(clone).exists():
            return
        self._remove(clone)
        self.connection.close()
        # Whoever has it open: a database that is closed is one file, without a WAL.
        ownership.take_over(self.connection.place)
        ownership.release(self.connection.path)
        shutil.copyfile(name, clone)

    def setup_worker_connection(self, _worker_id: int) -> None:
        """Let this process, a worker of `--parallel`, use its clone; in memory it makes it."""
        self.connection.settings_dict.update(self.get_test_db_clone_settings(str(_worker_id)))
        self.connection.close()
        if _in_memory(self.connection.settings_dict["NAME"]):
            mirrors = self.connection.settings_dict["TEST"]["MIRROR"]
            if not mirrors and not ownership.owns(self.connection.path):
                self.create_test_db(verbosity=0, autoclobber=True, serialize=False)
        elif (
            os.environ.get("RUNNING_DJANGOS_TEST_SUITE") == "true"
            and multiprocessing.get_start_method() != "fork"  # a fork has them from its parent
        ):
            self.mark_expected_failures_and_skips()

    def _remove(self, name: str) -> None:
        """Close the database `name` wherever it is open, and delete its files."""
        place = ownership.Place(self._path(name))
        if place.in_memory:
            ownership.release(place.path)
            return
        ownership.delete(place)
        for beside in ("lock", "sock"):  # a worker is ended too hard to take its socket away
            Path(f"{place.path}.{beside}").unlink(missing_ok=True)

    def _path(self, name: str) -> str:
        return name if _in_memory(name) else str(Path(name).absolute())

    def test_db_signature(self) -> tuple[Any, ...]:
        """Return what tells two test databases apart: each alias has its own memory."""
        return (self._path(self._get_test_db_name()),)


def _in_memory(name: str) -> bool:
    return str(name).startswith(":memory:")
