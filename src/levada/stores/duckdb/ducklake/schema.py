"""
Tables of a lake, as migrations make and change them.

Keys, unique and check constraints and indexes are left out: a lake has none.
NOT NULL comes with a new table alone: DuckLake 1.5.5 adds it to no column
that has rows without statistics, and a column just added has none. A column
that ALTER TABLE cannot convert is copied into a new one, which stands last.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import duckdb
from django.db.utils import DatabaseError, NotSupportedError

from ..schema import DatabaseSchemaEditor


class LakeSchemaEditor(DatabaseSchemaEditor):
    """Writes the DDL of a lake, each statement in a transaction of its own."""

    def __enter__(self) -> LakeSchemaEditor:
        if self.connection.in_atomic_block:
            raise NotSupportedError(
                f"Tables of the lake {self.connection.alias} cannot be changed inside of atomic(): "
                f"DuckLake can lose a table that one transaction changes twice. Change them "
                f"outside of it, or put atomic = False into the migration."
            )
        super().__enter__()
        return self

    def together(self) -> AbstractContextManager[None]:
        """Begin no transaction: DuckLake can lose a table that one changes twice."""
        return nullcontext()

    def create_model(self, model: Any) -> None:
        """Create the model's table and its automatic many-to-many tables."""
        columns = []
        for field in model._meta.local_fields:
            definition, _ = self.column_sql(model, field)
            if definition is not None:
                columns.append(f"{self.quote_name(field.column)} {definition}")
        table = self.quote_name(model._meta.db_table)
        self.execute(f"CREATE TABLE {table} ({', '.join(columns)})", None)
        if model._meta.db_table_comment:
            self.alter_db_table_comment(model, "", model._meta.db_table_comment)
        for field in model._meta.local_fields:
            self._comment_column(model, field)
        for field in model._meta.local_many_to_many:
            if field.remote_field.through._meta.auto_created:
                self.create_model(field.remote_field.through)

    def delete_model(self, model: Any) -> None:
        """Drop the model's table and its automatic many-to-many tables."""
        for field in model._meta.local_many_to_many:
            if field.remote_field.through._meta.auto_created:
                self.delete_model(field.remote_field.through)
        self.execute(f"DROP TABLE {self.quote_name(model._meta.db_table)}", None)

    def column_sql(
        self, model: Any, field: Any, include_default: bool = False
    ) -> tuple[str | None, Any]:
        """Return the column's type, and whether it takes NULL. Raises NotSupportedError."""
        kind = field.db_parameters(connection=self.connection)["type"]
        if kind is None:
            return None, None
        if field.generated:
            raise NotSupportedError(
                f"{model._meta.label}.{field.name} is a column that the database computes, which "
                f"a lake has not. Compute it in save()."
            )
        default = f" DEFAULT {self.db_default_sql(field)[0]}" if field.has_db_default() else ""
        return f"{kind}{default}{'' if field.null else ' NOT NULL'}", []

    def add_field(self, model: Any, field: Any) -> None:
        """Add the field's column, with its default in the rows that are there."""
        if field.many_to_many and field.remote_field.through._meta.auto_created:
            self.create_model(field.remote_field.through)
            return
        definition, _ = self.column_sql(model, field)
        if definition is None:
            return
        kind = field.db_parameters(connection=self.connection)["type"]
        self._alter(model, f"ADD COLUMN {self.quote_name(field.column)} {kind}")
        self._fill(model, field)
        self._comment_column(model, field)

    def remove_field(self, model: Any, field: Any) -> None:
        """Drop the field's column."""
        if field.many_to_many and field.remote_field.through._meta.auto_created:
            self.delete_model(field.remote_field.through)
        elif field.db_parameters(connection=self.connection)["type"] is not None:
            self._alter(model, f"DROP COLUMN {self.quote_name(field.column)}")

    def _alter_field(
        self,
        model: Any,
        old_field: Any,
        new_field: Any,
        old_type: str,
        new_type: str,
        old_db_params: Any,
        new_db_params: Any,
        strict: bool = False,
    ) -> None:
        """Rename and convert the column, fill it, or let it take NULL."""
        self.column_sql(model, new_field)
        old, new = self.quote_name(old_field.column), self.quote_name(new_field.column)
        if old_field.column != new_field.column:
            self._alter(model, f"RENAME COLUMN {old} TO {new}")
        if old_type != new_type:
            self._convert(model, new_field, new_type)
        if old_field.null and not new_field.null:
            self._fill(model, new_field)
        if new_field.null and not old_field.null:
            self._alter(model, f"ALTER COLUMN {new} DROP NOT NULL")
        self._comment_column(model, new_field)

    def _convert(self, model: Any, field: Any, kind: str) -> None:
        """Give the column the type `kind`: a wider one in place, any other by a copy."""
        column, copy = self.quote_name(field.column), self.quote_name(f"levada_new_{field.column}")
        table = self.quote_name(model._meta.db_table)
        try:
            self._alter(model, f"ALTER COLUMN {column} TYPE {kind}")
        except DatabaseError as error:
            if not isinstance(error.__cause__, duckdb.Error) or "widening" not in str(error):
                raise
        else:
            return
        self._alter(model, f"ADD COLUMN {copy} {kind}")
        self.execute(f"UPDATE {table} SET {copy} = CAST({column} AS {kind})", None)
        self._alter(model, f"DROP COLUMN {column}")
        self._alter(model, f"RENAME COLUMN {copy} TO {column}")

    def _fill(self, model: Any, field: Any) -> None:
        """Write the field's default where there is nothing."""
        if self.effective_default(field) is not None:
            table, column = self.quote_name(model._meta.db_table), self.quote_name(field.column)
            value = self._default_of(model, field)
            self.execute(f"UPDATE {table} SET {column} = {value} WHERE {column} IS NULL", None)

    def _alter(self, model: Any, change: str) -> None:
        self.execute(f"ALTER TABLE {self.quote_name(model._meta.db_table)} {change}", None)

    def alter_db_table(self, model: Any, old_db_table: str, new_db_table: str) -> None:
        """Rename the table."""
        if old_db_table.lower() != new_db_table.lower():
            old, new = self.quote_name(old_db_table), self.quote_name(new_db_table)
            self.execute(f"ALTER TABLE {old} RENAME TO {new}", None)

    # A lake has none of these: a migration that asks for them changes nothing.

    def alter_unique_together(self, model: Any, old: Any, new: Any) -> None:
        """Do nothing: a lake has no unique constraints."""

    def alter_index_together(self, model: Any, old: Any, new: Any) -> None:
        """Do nothing: a lake has no indexes."""

    def add_index(self, model: Any, index: Any) -> None:
        """Do nothing: a lake has no indexes."""

    def remove_index(self, model: Any, index: Any) -> None:
        """Do nothing: a lake has no indexes."""

    def rename_index(self, model: Any, old_index: Any, new_index: Any) -> None:
        """Do nothing: a lake has no indexes."""

    def add_constraint(self, model: Any, constraint: Any) -> None:
        """Do nothing: a lake has no constraints."""

    def remove_constraint(self, model: Any, constraint: Any) -> None:
        """Do nothing: a lake has no constraints."""
