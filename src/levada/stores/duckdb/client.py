"""`manage.py dbshell`: DuckDB's own command line on the file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.backends.base.client import BaseDatabaseClient


class DatabaseClient(BaseDatabaseClient):
    """Runs `duckdb FILE`."""

    executable_name = "duckdb"

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], None]:
        """Return the command line; DuckDB's shell needs no environment."""
        return [cls.executable_name, *parameters, str(settings_dict["NAME"])], None
