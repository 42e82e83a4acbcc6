"""What DuckDB cannot make of a model's fields, said by `manage.py check`."""

from __future__ import annotations

import re
from typing import Any

from django.core import checks
from django.db.backends.base.validation import BaseDatabaseValidation

_NOT_INDEXED = re.compile(r"(INTERVAL|STRUCT|MAP|UNION)\b|.*\[\d*\]$", re.DOTALL)
"""The types of which DuckDB makes no index: "Invalid type for index key"."""


class DatabaseValidation(BaseDatabaseValidation):
    """Finds fields that no table can have."""

    def check_field(self, field: Any, **options: Any) -> list[checks.CheckMessage]:
        """Return an error for a key, a unique or an indexed field of a type without index."""
        data_type = field.db_type(self.connection)
        asked = field.unique or field.db_index
        if not asked or data_type is None or not _NOT_INDEXED.match(data_type):
            return []
        return [
            checks.Error(
                f"DuckDB cannot index a column of type {data_type}, nor keep its values unique.",
                hint="Leave primary_key, unique and db_index out, or keep the value as a number: "
                "a duration as its seconds.",
                obj=field,
                id="levada.E065",
            )
        ]
