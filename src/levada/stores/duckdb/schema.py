"""
Tables, as migrations make and change them.

What DuckDB cannot alter is done by making the table anew (`shape.py`). There
are no foreign keys. Unique constraints beyond a column's own are unique
indexes, because DuckDB forgets the names of constraints and cannot drop them.
On a replica's alias the replicated models are left alone: their tables are
the applier's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor, _related_non_m2m_objects
from django.db.backends.ddl_references import Statement
from django.db.models import CheckConstraint

from ...conf import replicated_in
from .parameters import literal, unquoted
from .shape import Column, Constraint, Shape, read_shape

AUTO_FIELDS = frozenset(("AutoField", "BigAutoField", "SmallAutoField"))


class DatabaseSchemaEditor(BaseDatabaseSchemaEditor):
    """Writes DuckDB's DDL."""

    sql_delete_table = "DROP TABLE %(table)s"
    sql_create_sequence = "CREATE SEQUENCE IF NOT EXISTS %(name)s"
    sql_delete_sequence = "DROP SEQUENCE IF EXISTS %(name)s"
    sql_create_unique = "CREATE UNIQUE INDEX %(name)s ON %(table)s (%(columns)s)"
    sql_delete_unique = "DROP INDEX %(name)s"
    sql_create_unique_index = "CREATE UNIQUE INDEX %(name)s ON %(table)s (%(columns)s)"
    sql_create_index = "CREATE INDEX %(name)s ON %(table)s (%(columns)s)"

    def quote_value(self, value: Any) -> str:
        """Return `value` as SQL literal; a percent sign stays one."""
        return literal(value)

    def prepare_default(self, value: Any) -> str:
        """Return a default as SQL literal."""
        return literal(value)

    # Creating and dropping.

    def create_model(self, model: Any) -> None:
        """Create the model's table, its sequence and its automatic many-to-many tables."""
        for field in model._meta.local_fields:
            if field.get_internal_type() in AUTO_FIELDS:
                name = self.connection.ops.sequence_name(model._meta.db_table, field.column)
                self.execute(self.sql_create_sequence % {"name": self.quote_name(name)})
        super().create_model(model)

    def delete_model(self, model: Any) -> None:
        """Drop the model's table and its sequence."""
        sequences = self._sequences(model._meta.db_table)
        super().delete_model(model)
        for name in sequences:
            self.execute(self.sql_delete_sequence % {"name": self.quote_name(name)})

    def column_sql(
        self, model: Any, field: Any, include_default: bool = False
    ) -> tuple[str | None, Any]:
        """Return the column's definition; an automatic key draws from its sequence."""
        definition, params = super().column_sql(model, field, include_default)
        if definition is not None and field.get_internal_type() in AUTO_FIELDS:
            definition += f" {self._next_value(model, field)}"
        return definition, params

    def _next_value(self, model: Any, field: Any) -> str:
        name = self.connection.ops.sequence_name(model._meta.db_table, field.column)
        return f"DEFAULT nextval({literal(self.quote_name(name))})"

    def _sequences(self, table: str) -> list[str]:
        with self.connection.cursor() as cursor:
            found = self.connection.introspection.get_sequences(cursor, table)
        return [each["name"] for each in found]

    # Columns.

    def add_field(self, model: Any, field: Any) -> None:
        """Add the field's column; with a key, check, NOT NULL or default the table is remade."""
        if field.many_to_many and field.remote_field.through._meta.auto_created:
            self.create_model(field.remote_field.through)
            return
        if field.db_parameters(connection=self.connection)["type"] is None:
            return
        if self._is_plain(field):
            super().add_field(model, field)
            return
        shape = self._shape(model)
        column, constraints = self._described(model, field)
        shape = replace(
            shape,
            columns=(*shape.columns, column),
            constraints=(*shape.constraints, *constraints),
        )
        self._remake(shape, {} if field.generated else {column.name: self._default_of(field)})
        self._comment_column(model, field)
        self.deferred_sql.extend(self._field_indexes_sql(model, field))

    def remove_field(self, model: Any, field: Any) -> None:
        """Drop the field's column and the constraints and indexes that name it."""
        if field.many_to_many and field.remote_field.through._meta.auto_created:
            self.delete_model(field.remote_field.through)
            return
        if field.db_parameters(connection=self.connection)["type"] is None:
            return
        name = field.column
        shape = self._shape(model).with_column(name, None)
        shape = shape.without_constraints(lambda each: _names(each.columns, name))
        self._remake(shape.without_indexes(lambda each: _names(each.columns, name)), {})
        for sql in list(self.deferred_sql):
            if isinstance(sql, Statement) and sql.references_column(model._meta.db_table, name):
                self.deferred_sql.remove(sql)

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
        """Change a column by making the table anew, and those that refer to a key's type."""
        if self._looks_alike(model, old_field, new_field):
            return
        shape = self._altered(self._shape(model), model, old_field, new_field)
        self._remake(shape, {new_field.column: self._converted(old_field, new_field)})
        if old_field.column != new_field.column:
            for sql in self.deferred_sql:
                if isinstance(sql, Statement):
                    sql.rename_column_references(
                        model._meta.db_table, old_field.column, new_field.column
                    )
        self._comment_column(model, new_field)
        if self._indexed(model, new_field) and not self._indexed(model, old_field):
            self.execute(self._create_index_sql(model, fields=[new_field]))
        if old_type != new_type and new_field.unique:
            self._retype_references(old_field, new_field)

    def _looks_alike(self, model: Any, old_field: Any, new_field: Any) -> bool:
        """Say whether both fields make the same column, as when only a default changed."""
        return (
            self._described(model, old_field) == self._described(model, new_field)
            and old_field.db_comment == new_field.db_comment
            and self._indexed(model, old_field) == self._indexed(model, new_field)
        )

    def _altered(self, shape: Shape, model: Any, old_field: Any, new_field: Any) -> Shape:
        """Return the shape with `old_field` replaced by `new_field`."""
        old = old_field.column
        mine = {"PRIMARY KEY", "UNIQUE"}
        old_check = self._check_text(model, old_field)
        column, constraints = self._described(model, new_field)
        shape = shape.without_constraints(
            lambda each: (
                (each.kind in mine and _only(each.columns, old))
                or (each.kind == "CHECK" and each.sql == old_check)
                or (each.kind == "PRIMARY KEY" and new_field.primary_key)
            )
        )
        if old_field.primary_key and not new_field.primary_key:
            shape = shape.without_constraints(lambda each: each.kind == "PRIMARY KEY")
        kept = {each.name for each in (*model._meta.indexes, *model._meta.constraints)}
        going = {
            False: self._indexed(model, old_field) and not self._indexed(model, new_field),
            True: old_field.unique and not new_field.unique,
        }
        shape = shape.without_indexes(
            lambda each: _only(each.columns, old) and going[each.unique] and each.name not in kept
        )
        shape = shape.with_column(old, replace(column, name=new_field.column))
        if old != new_field.column:
            shape = shape.renamed(old, new_field.column)
        return replace(shape, constraints=(*shape.constraints, *constraints))

    def _retype_references(self, old_field: Any, new_field: Any) -> None:
        """Give the columns that refer to `new_field` its new type."""
        for _, relation in _related_non_m2m_objects(old_field, new_field):
            field = relation.field
            shape = self._shape(relation.related_model)
            column, _ = self._described(relation.related_model, field)
            new_type = field.db_parameters(connection=self.connection)["type"]
            shape = shape.with_column(field.column, column)
            quoted = self.quote_name(field.column)
            self._remake(shape, {field.column: f"CAST({quoted} AS {new_type})"})

    # Constraints, indexes and names.

    def add_constraint(self, model: Any, constraint: Any) -> None:
        """Add a constraint; a check by making the table anew."""
        if not isinstance(constraint, CheckConstraint):
            super().add_constraint(model, constraint)
            return
        sql = str(constraint.constraint_sql(model, self))
        shape = self._shape(model)
        added = Constraint("CHECK", (), sql)
        self._remake(replace(shape, constraints=(*shape.constraints, added)), {})

    def remove_constraint(self, model: Any, constraint: Any) -> None:
        """Remove a constraint; a check is found by its expression, DuckDB keeps no name."""
        if not isinstance(constraint, CheckConstraint):
            super().remove_constraint(model, constraint)
            return
        shape = self._shape(model)
        text = self._as_stored(shape, str(constraint.constraint_sql(model, self)))
        self._remake(shape.without_constraints(lambda each: each.sql == text), {})

    def alter_db_table(self, model: Any, old_db_table: str, new_db_table: str) -> None:
        """Rename the table; DuckDB renames none that has indexes, so they are made again."""
        if old_db_table.lower() == new_db_table.lower():
            return
        with self.connection.cursor() as cursor:
            shape = read_shape(cursor, old_db_table, self.quote_name)
        for index in shape.indexes:
            self.execute(f"DROP INDEX {self.quote_name(index.name)}")
        super().alter_db_table(model, old_db_table, new_db_table)
        for index in shape.indexes:
            head, _, rest = index.sql.partition("(")
            head = head.rpartition(" ON ")[0]
            self.execute(f"{head} ON {self.quote_name(new_db_table)}({rest}", None)

    def _unique_sql(self, model: Any, fields: Any, name: str, **options: Any) -> None:
        """Make a named unique constraint an index, once the table is there."""
        sql = self._create_unique_sql(model, fields, name, **options)
        if sql:
            self.deferred_sql.append(sql)

    def _field_should_be_indexed(self, model: Any, field: Any) -> bool:
        """Index what asks for it, but no foreign key: a scan is fast, keeping an index is not."""
        return field.db_index and not field.unique and field.remote_field is None

    def _indexed(self, model: Any, field: Any) -> bool:
        return self._field_should_be_indexed(model, field)

    # Making a table anew.

    def _shape(self, model: Any) -> Shape:
        with self.connection.cursor() as cursor:
            return read_shape(cursor, model._meta.db_table, self.quote_name)

    def _remake(self, shape: Shape, values: dict[str, str]) -> None:
        """Make the table anew in `shape`; `values` is SQL for columns that are not just copied."""
        quote, old = self.quote_name, shape.table
        new = f"levada_new_{unquoted(old)}"
        copied = [column.name for column in shape.columns if not column.generated]
        columns = ", ".join(map(quote, copied))
        selected = ", ".join(values.get(name, quote(name)) for name in copied)
        self.execute(shape.create_sql(new, quote), None)
        self.execute(
            f"INSERT INTO {quote(new)} ({columns}) SELECT {selected} FROM {quote(old)}", None
        )
        self.execute(f"DROP TABLE {quote(old)}", None)
        self.execute(f"ALTER TABLE {quote(new)} RENAME TO {quote(old)}", None)
        for index in shape.indexes:
            self.execute(index.sql, None)
        for column in shape.columns:
            if column.comment:
                comment = f"{quote(old)}.{quote(column.name)} IS {literal(column.comment)}"
                self.execute(f"COMMENT ON COLUMN {comment}", None)

    def _described(self, model: Any, field: Any) -> tuple[Column, list[Constraint]]:
        """Return a field's column and the constraints that are its own."""
        params = field.db_parameters(connection=self.connection)
        name, quoted = field.column, self.quote_name(field.column)
        definition = params["type"]
        if field.generated:
            generated, _ = self._column_generated_sql(field)
            return Column(name, f"{definition} {generated}", generated=True), []
        if field.get_internal_type() in AUTO_FIELDS:
            sequence = self.connection.ops.sequence_name(model._meta.db_table, name)
            self.execute(self.sql_create_sequence % {"name": self.quote_name(sequence)})
            definition += f" {self._next_value(model, field)}"
        elif field.has_db_default():
            definition += f" DEFAULT {self.db_default_sql(field)[0]}"
        definition += "" if field.null else " NOT NULL"
        constraints = []
        if field.primary_key:
            constraints.append(Constraint("PRIMARY KEY", (name,), f"PRIMARY KEY ({quoted})"))
        elif field.unique:
            constraints.append(Constraint("UNIQUE", (name,), f"UNIQUE ({quoted})"))
        if params["check"]:
            constraints.append(Constraint("CHECK", (name,), f"CHECK ({params['check']})"))
        return Column(name, definition), constraints

    def _is_plain(self, field: Any) -> bool:
        """Say whether ADD COLUMN can do it: nullable, and nothing else asked for."""
        params = field.db_parameters(connection=self.connection)
        return (
            field.null
            and not (field.unique or field.primary_key or field.generated or params["check"])
            and not field.has_db_default()
            and self.effective_default(field) is None
            and field.get_internal_type() not in AUTO_FIELDS
        )

    def _default_of(self, field: Any) -> str:
        """Return what an added column holds in the rows that are there."""
        if field.get_internal_type() in AUTO_FIELDS:
            table = field.model._meta.db_table
            name = self.connection.ops.sequence_name(table, field.column)
            return f"nextval({literal(self.quote_name(name))})"
        if field.has_db_default():
            return self.db_default_sql(field)[0]
        value = self.effective_default(field)
        kind = field.db_parameters(connection=self.connection)["type"]
        return f"CAST({literal(value)} AS {kind})"

    def _converted(self, old_field: Any, new_field: Any) -> str:
        """Return how the old column's value becomes the new one's."""
        old = self.quote_name(old_field.column)
        new_type = new_field.db_parameters(connection=self.connection)["type"]
        converted = old
        if new_type != old_field.db_parameters(connection=self.connection)["type"]:
            converted = f"CAST({old} AS {new_type})"
        if old_field.null and not new_field.null:
            default = self._default_of(new_field)
            if default != f"CAST(NULL AS {new_type})":
                converted = f"coalesce({converted}, {default})"
        return converted

    def _check_text(self, model: Any, field: Any) -> str | None:
        """Return the text under which DuckDB keeps the check of the field's type."""
        check = field.db_parameters(connection=self.connection)["check"]
        return self._as_stored(self._shape(model), f"CHECK ({check})") if check else None

    def _as_stored(self, shape: Shape, sql: str) -> str:
        """Return a check as DuckDB would keep it, by letting it keep it for a moment."""
        probe = f"levada_probe_{unquoted(shape.table)}"
        bare = replace(shape, constraints=(Constraint("CHECK", (), sql),))
        with self.connection.cursor() as cursor:
            cursor.execute(bare.create_sql(probe, self.quote_name), None)
            stored = read_shape(cursor, probe, self.quote_name).constraints[0].sql
            cursor.execute(f"DROP TABLE {self.quote_name(probe)}", None)
        return stored

    def _comment_column(self, model: Any, field: Any) -> None:
        if field.db_comment:
            table, column = self.quote_name(model._meta.db_table), self.quote_name(field.column)
            self.execute(f"COMMENT ON COLUMN {table}.{column} IS {literal(field.db_comment)}", None)


def _names(columns: tuple[str, ...], name: str) -> bool:
    return name.lower() in (each.lower() for each in columns)


def _only(columns: tuple[str, ...], name: str) -> bool:
    return len(columns) == 1 and _names(columns, name)


def _unless_replicated(action: Callable[..., Any]) -> Callable[..., Any]:
    """Leave the tables of replicated models to the applier."""

    def guarded(self: DatabaseSchemaEditor, model: Any, *args: Any, **options: Any) -> Any:
        if model._meta.label in replicated_in(self.connection.alias):
            return None
        return action(self, model, *args, **options)

    guarded.__name__, guarded.__doc__ = action.__name__, action.__doc__
    return guarded


for _action in (
    "create_model", "delete_model", "add_field", "remove_field", "alter_field",
    "alter_db_table", "alter_db_table_comment", "alter_unique_together", "alter_index_together",
    "add_index", "remove_index", "rename_index", "add_constraint", "remove_constraint",
):  # fmt: skip
    setattr(
        DatabaseSchemaEditor, _action, _unless_replicated(getattr(DatabaseSchemaEditor, _action))
    )
