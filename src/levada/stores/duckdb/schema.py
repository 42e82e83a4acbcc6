"""
Tables, as migrations make and change them.

DuckDB's own ALTER TABLE does what it can; the rest is done by making the table
anew (`shape.py`). There are no foreign keys. Unique constraints beyond a
column's own are unique indexes, because DuckDB forgets the names of constraints
and cannot drop them; a check carries its name in its text (`ddl.py`). On a
replica's alias the replicated models are left alone: their tables are the
applier's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db.backends.base.schema import BaseDatabaseSchemaEditor, _related_non_m2m_objects
from django.db.backends.ddl_references import Statement
from django.db.models import CheckConstraint, UniqueConstraint, Value
from django.db.transaction import atomic
from django.db.utils import NotSupportedError, ProgrammingError

from ...conf import replicated_in
from . import introspection
from .ddl import equal_if_null, listed, mentions, named_check, only_where, rename_identifier
from .parameters import literal, unquoted
from .shape import Column, Constraint, IndexShape, Shape, read_shape

AUTO_FIELDS = frozenset(("AutoField", "BigAutoField", "SmallAutoField"))

_UPDATES = re.compile(r"\b(?:UPDATE|MERGE)\b", re.IGNORECASE)
_DROPS_INDEX = re.compile(r"\bDROP\s+INDEX\b", re.IGNORECASE)
_TEXT_LENGTH = re.compile(r"\bVARCHAR\(\d+\)")

SETTLE_SEQUENCE = (
    "SELECT setval({new}, greatest(n, 1), n > 0) FROM (SELECT greatest("
    "coalesce(max(TRY_CAST({column} AS BIGINT)), 0), "
    "coalesce((SELECT last_value FROM duckdb_sequences() WHERE sequence_name = {old} "
    "AND database_name = current_database() AND schema_name = current_schema()), 0)"
    ") AS n FROM {table})"
)
"""Let a sequence go on after the highest key, and after all that another one has given."""


class DatabaseSchemaEditor(BaseDatabaseSchemaEditor):
    """Writes DuckDB's DDL."""

    sql_delete_table = "DROP TABLE %(table)s"
    sql_create_sequence = "CREATE SEQUENCE IF NOT EXISTS %(name)s"
    sql_delete_sequence = "DROP SEQUENCE IF EXISTS %(name)s"
    sql_create_unique = "CREATE UNIQUE INDEX %(name)s ON %(table)s (%(columns)s)"
    sql_delete_unique = "DROP INDEX %(name)s"
    sql_create_unique_index = "CREATE UNIQUE INDEX %(name)s ON %(table)s (%(columns)s)"
    sql_create_index = "CREATE INDEX %(name)s ON %(table)s (%(columns)s)"

    def __enter__(self) -> DatabaseSchemaEditor:
        # In one transaction, DuckDB makes no index on a table whose rows were
        # updated, sets no column of it NOT NULL, and changes or drops no column
        # of a table that lost an index. What was done before we came is unknown.
        self._updated = self._unindexed = self.connection.in_atomic_block
        self._fresh: set[str] = set()
        self._was: dict[str, str] = {}
        super().__enter__()
        self.connection.execute_wrappers.append(self._watch)
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            super().__exit__(*error)
        finally:
            self.connection.execute_wrappers.remove(self._watch)

    def _watch(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        """Notice statements of the transaction, `RunPython`'s too, that stand in our way later."""
        if self.connection.in_atomic_block:
            self._updated = self._updated or bool(_UPDATES.search(sql))
            self._unindexed = self._unindexed or bool(_DROPS_INDEX.search(sql))
        return execute(sql, params, many, context)

    def together(self) -> AbstractContextManager[None]:
        """
        Do several statements in one transaction, also in a migration without one.

        Else one that fails would leave rows under the name of a table half made.
        """
        if self.collect_sql or self.connection.in_atomic_block:
            return nullcontext()
        return self._own_transaction()

    @contextmanager
    def _own_transaction(self) -> Iterator[None]:
        state = self._updated, self._unindexed, set(self._fresh)
        with atomic(self.connection.alias):
            yield
        self._updated, self._unindexed, self._fresh = state

    def execute(self, sql: Any, params: Any = ()) -> None:
        """Run a statement; an index that DuckDB cannot make now is made with a new table."""
        if isinstance(sql, Statement) and str(sql).startswith("CREATE"):
            table = sql.parts["table"].table
            if not self._indexable(table):
                with self.connection.cursor() as cursor:
                    shape = read_shape(cursor, table, self.quote_name)
                self._remake(shape.with_index(_index_shape(sql)), {})
                return
        # Without parameters a percent sign is only one, as in a table's name.
        super().execute(sql, params or None)

    def _indexable(self, table: str) -> bool:
        """Say whether CREATE INDEX and SET NOT NULL are possible in this transaction."""
        return self.collect_sql or not self._updated or unquoted(table) in self._fresh

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
            if _is_auto(field):
                self._create_sequence(model._meta.db_table, field.column)
        self._fresh.add(unquoted(model._meta.db_table))
        super().create_model(model)

    def delete_model(self, model: Any) -> None:
        """Drop the model's table and its sequence."""
        table = model._meta.db_table
        sequences = [
            self._sequence(table, field.column)
            for field in model._meta.local_fields
            if _is_auto(field)
        ]
        super().delete_model(model)
        for name in sequences:
            self.execute(self.sql_delete_sequence % {"name": self.quote_name(name)}, None)

    def column_sql(
        self, model: Any, field: Any, include_default: bool = False
    ) -> tuple[str | None, Any]:
        """Return the column's definition; an automatic key draws from its sequence."""
        definition, params = super().column_sql(model, field, include_default)
        if definition is not None and _is_auto(field):
            definition += f" DEFAULT {self._next_value(model, field)}"
        return definition, params

    # Sequences.

    def _sequence(self, table: str, column: str) -> str:
        return self.connection.ops.sequence_name(table, column)

    def _sequence_literal(self, table: str, column: str) -> str:
        return literal(self.quote_name(self._sequence(table, column)))

    def _next_value(self, model: Any, field: Any) -> str:
        return f"nextval({self._sequence_literal(model._meta.db_table, field.column)})"

    def _create_sequence(self, table: str, column: str) -> None:
        name = self.quote_name(self._sequence(table, column))
        self.execute(self.sql_create_sequence % {"name": name}, None)

    def _drop_sequence(self, table: str, column: str) -> None:
        name = self.quote_name(self._sequence(table, column))
        self.execute(self.sql_delete_sequence % {"name": name}, None)

    def _settle_sequence(self, new: tuple[str, str], old: tuple[str, str]) -> None:
        """Let the sequence of `new`, a table and column, go on where `old` with its rows is."""
        table, column = map(self.quote_name, old)
        sql = SETTLE_SEQUENCE.format(
            new=self._sequence_literal(*new),
            old=literal(self._sequence(*old)),
            table=table,
            column=column,
        )
        self.execute(sql, None)

    # Columns.

    def add_field(self, model: Any, field: Any) -> None:
        """Add the field's column; with a key, a check or a computation the table is remade."""
        if field.many_to_many and field.remote_field.through._meta.auto_created:
            self.create_model(field.remote_field.through)
            return
        if field.db_parameters(connection=self.connection)["type"] is None:
            return
        if _is_auto(field):
            self._create_sequence(model._meta.db_table, field.column)
        shape = self._shape(model)
        if not self._add_column(shape, model, field):
            column, constraints = self._described(model, field)
            shape = replace(shape, columns=(*shape.columns, column))
            values = {} if field.generated else {column.name: self._default_of(model, field)}
            self._remake(shape.with_constraints(*constraints), values)
        self._comment_column(model, field)
        self.deferred_sql.extend(self._field_indexes_sql(model, field))

    def _add_column(self, shape: Shape, model: Any, field: Any) -> bool:
        """Add a column by ALTER TABLE; False where DuckDB cannot."""
        column, constraints = self._described(model, field)
        if constraints or field.generated or _is_auto(field):
            return False
        # A default would do under indexes, but NOT NULL does not.
        in_the_way = () if field.null else shape.indexes
        default = self.effective_default(field)
        constant = _is_constant(field._db_default_expression if field.has_db_default() else default)
        if not (field.null or (constant and self._indexable(shape.table))):
            return False
        definition = column.definition
        drops_default = default is not None and not field.has_db_default()
        if drops_default:
            required = "" if field.null else " NOT NULL"
            definition = definition.removesuffix(" NOT NULL")
            definition += f" DEFAULT {self._default_of(model, field)}{required}"
        statements = [f"ADD COLUMN {self.quote_name(column.name)} {definition}"]
        if drops_default:
            statements.append(f"ALTER COLUMN {self.quote_name(column.name)} DROP DEFAULT")
        self._alter_table(shape, in_the_way, statements, in_the_way)
        return True

    def remove_field(self, model: Any, field: Any) -> None:
        """Drop the field's column and the constraints and indexes that name it."""
        if field.many_to_many and field.remote_field.through._meta.auto_created:
            self.delete_model(field.remote_field.through)
            return
        if field.db_parameters(connection=self.connection)["type"] is None:
            return
        name, table = unquoted(field.column), model._meta.db_table
        shape = self._shape(model)
        if self._droppable(shape, name):
            self._alter_table(shape, (), [f"DROP COLUMN {self.quote_name(name)}"], ())
        else:
            left = shape.with_column(name, None).without_constraints(lambda each: each.names(name))
            self._remake(left.without_indexes(lambda each: each.mentions(name)), {})
        if _is_auto(field):
            self._drop_sequence(table, name)
        for sql in list(self.deferred_sql):
            if isinstance(sql, Statement) and sql.references_column(table, field.column):
                self.deferred_sql.remove(sql)

    def _droppable(self, shape: Shape, name: str) -> bool:
        """Say whether DROP COLUMN can do it: no index, and no key from this column on."""
        if shape.indexes or self._unindexed or not self._indexable(shape.table):
            return False
        behind = {each.lower() for each in shape.names()[shape.position(name) :]}
        return not any(
            each.names(name) or (each.is_key and behind & set(map(str.lower, each.columns)))
            for each in shape.constraints
        ) and not any(each.generated and mentions(each.definition, name) for each in shape.columns)

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
        """Change a column by ALTER TABLE or with a new table, and the columns that refer to it."""
        if self._looks_alike(model, old_field, new_field):
            return
        table = model._meta.db_table
        old, new = unquoted(old_field.column), unquoted(new_field.column)
        continued = _is_auto(old_field) and _is_auto(new_field)
        if _is_auto(new_field) and (old != new or not continued):
            self._create_sequence(table, new)
            self._settle_sequence((table, new), (table, old))
        shape = self._shape_before(model, old_field, new)
        altered = self._altered(shape, model, old_field, new_field)
        if not self._alter_column(shape, altered, model, old_field, new_field):
            self._remake(altered, {new: self._converted(model, old_field, new_field)})
        if _is_auto(old_field) and (old != new or not continued):
            self._drop_sequence(table, old)
        if old != new:
            for sql in self.deferred_sql:
                if isinstance(sql, Statement):
                    sql.rename_column_references(table, old_field.column, new_field.column)
        if old_field.db_comment != new_field.db_comment:
            self._comment_column(model, new_field, removed=True)
        if self._indexed(model, new_field) and not self._indexed(model, old_field):
            self.execute(self._create_index_sql(model, fields=[new_field]))
        if not _same_type(old_type, new_type) and new_field.unique:
            self._retype_references(old_field, new_field)

    def _shape_before(self, model: Any, old_field: Any, new: str) -> Shape:
        """Return the shape before a change; `RenameModel` hands in the model as it will be."""
        shape, old = self._shape(model), unquoted(old_field.column)
        if self.collect_sql and old not in shape.names() and new in shape.names():
            column, _ = self._described(model, old_field)
            shape = shape.with_column(new, column).renamed(new, old)
            return replace(shape, indexes=self._as_named(shape.table, shape.indexes))
        return shape

    def _looks_alike(self, model: Any, old_field: Any, new_field: Any) -> bool:
        """Say whether both fields make the same column, as when only a default changed."""
        old, old_constraints = self._described(model, old_field)
        new, new_constraints = self._described(model, new_field)
        return (
            old.name == new.name
            and _same_type(old.definition, new.definition)
            and old_constraints == new_constraints
            and old_field.db_comment == new_field.db_comment
            and self._indexed(model, old_field) == self._indexed(model, new_field)
        )

    def _altered(self, shape: Shape, model: Any, old_field: Any, new_field: Any) -> Shape:
        """Return the shape with `old_field` replaced by `new_field`."""
        old, new = unquoted(old_field.column), unquoted(new_field.column)
        old_check = self._check_text(model, old_field)
        column, constraints = self._described(model, new_field)
        shape = shape.without_constraints(
            lambda each: (
                (each.kind in ("PRIMARY KEY", "UNIQUE") and _only(each.columns, old))
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
        comment = shape.column(old).comment
        shape = shape.with_column(old, replace(column, comment=comment))
        if old != new:
            shape = shape.renamed(old, new)
        return shape.with_constraints(*constraints)

    def _alter_column(
        self, shape: Shape, altered: Shape, model: Any, old_field: Any, new_field: Any
    ) -> bool:
        """Turn `shape` into `altered` by ALTER TABLE; False where DuckDB cannot."""
        statements = self._alterations(shape, model, old_field, new_field)
        if statements is None:
            return False
        # A default is the one thing that may change under indexes.
        if all(each.endswith("DROP DEFAULT") or " SET DEFAULT " in each for each in statements):
            names = {each.name for each in altered.indexes}
            dropped = tuple(each for each in shape.indexes if each.name not in names)
            made: tuple[IndexShape, ...] = ()
        elif self._indexable(shape.table):
            dropped, made = shape.indexes, altered.indexes
        else:
            return False
        self._alter_table(shape, dropped, statements, made)
        return True

    def _alterations(
        self, shape: Shape, model: Any, old_field: Any, new_field: Any
    ) -> list[str] | None:
        """Return what ALTER TABLE has to do, None where it is more than it can."""
        old, new = unquoted(old_field.column), unquoted(new_field.column)
        if self._own_rules(old_field) != self._own_rules(new_field) or new_field.generated:
            return None
        quoted, statements = self.quote_name(new), []
        if old != new:
            if old.lower() == new.lower():
                return None
            statements.append(f"RENAME COLUMN {self.quote_name(old)} TO {quoted}")
        if not _same_type(self._type_of(old_field), self._type_of(new_field)):
            if self._unindexed or shape.depends_on(old):
                return None
            value = rename_identifier(self._converted(model, old_field, new_field), old, new)
            statements.append(
                f"ALTER COLUMN {quoted} TYPE {self._type_of(new_field)} USING {value}"
            )
        if old_field.null and not new_field.null:
            if self._has_default(new_field):
                return None
            statements.append(f"ALTER COLUMN {quoted} SET NOT NULL")
        elif new_field.null and not old_field.null:
            statements.append(f"ALTER COLUMN {quoted} DROP NOT NULL")
        default = self._standing_default(model, new_field)
        if default is not None and default != self._standing_default(model, old_field):
            statements.append(f"ALTER COLUMN {quoted} SET DEFAULT {default}")
        elif default is None and self._standing_default(model, old_field) is not None:
            statements.append(f"ALTER COLUMN {quoted} DROP DEFAULT")
        return statements

    def _own_rules(self, field: Any) -> tuple[Any, ...]:
        """Return the rules of a column that ALTER TABLE can neither add nor remove."""
        check = self._field_db_check(field, field.db_parameters(connection=self.connection))
        return field.primary_key, field.unique, check, field.generated

    def _retype_references(self, old_field: Any, new_field: Any) -> None:
        """Give the columns that refer to `new_field` its new type."""
        for _, relation in _related_non_m2m_objects(old_field, new_field):
            field = relation.field
            shape = self._shape(relation.related_model)
            column, _ = self._described(relation.related_model, field)
            name, quoted = column.name, self.quote_name(column.name)
            new_type = self._type_of(field)
            value = f"CAST({quoted} AS {new_type})"
            if shape.indexes or self._unindexed or shape.depends_on(name):
                comment = shape.column(name).comment
                shape = shape.with_column(name, replace(column, comment=comment))
                self._remake(shape, {name: value})
            else:
                statement = f"ALTER COLUMN {quoted} TYPE {new_type} USING {value}"
                self._alter_table(shape, (), [statement], ())

    # Constraints, indexes and names.

    def add_constraint(self, model: Any, constraint: Any) -> None:
        """Add a constraint; a check by making the table anew."""
        if not isinstance(constraint, CheckConstraint):
            super().add_constraint(model, constraint)
            return
        shape = self._shape(model)
        if self.collect_sql:  # then the shape is that of the model, which has it already
            shape = shape.without_constraints(lambda each: each.name == constraint.name)
        added = Constraint("CHECK", (), str(constraint.constraint_sql(model, self)))
        self._remake(shape.with_constraints(added), {})

    def remove_constraint(self, model: Any, constraint: Any) -> None:
        """Remove a constraint. Raises ProgrammingError if no check has that name."""
        if not isinstance(constraint, CheckConstraint):
            super().remove_constraint(model, constraint)
            return
        shape = self._shape(model)
        left = shape.without_constraints(lambda each: each.name == constraint.name)
        if left == shape and not self.collect_sql:
            raise ProgrammingError(
                f"{model._meta.db_table} has no check constraint {constraint.name!r}. "
                "Compare its migrations with: manage.py inspectdb, manage.py showmigrations"
            )
        self._remake(left, {})

    def alter_db_table(self, model: Any, old_db_table: str, new_db_table: str) -> None:
        """Rename the table and its sequence; DuckDB renames none that has indexes."""
        if old_db_table.lower() == new_db_table.lower():
            return
        shape = self._shape(model, old_db_table)
        if self.collect_sql:  # it keeps its name in the database
            self._was[new_db_table] = self._was.get(old_db_table, old_db_table)
        if unquoted(old_db_table) in self._fresh:
            self._fresh.add(unquoted(new_db_table))
        auto = [field for field in model._meta.local_fields if _is_auto(field)]
        for field in auto:
            self._create_sequence(new_db_table, field.column)
            self._settle_sequence((new_db_table, field.column), (old_db_table, field.column))
        if shape.indexes and not self._indexable(old_db_table):
            self._remake(shape, {}, new_db_table)
            for sql in self.deferred_sql:
                if isinstance(sql, Statement):
                    sql.rename_table_references(old_db_table, new_db_table)
        else:
            for index in shape.indexes:
                self.execute(f"DROP INDEX {self.quote_name(index.name)}", None)
            super().alter_db_table(model, old_db_table, new_db_table)
            for index in shape.indexes:
                self._create_index(index, new_db_table)
        for field in auto:
            table, column = self.quote_name(new_db_table), self.quote_name(field.column)
            value = f"nextval({self._sequence_literal(new_db_table, field.column)})"
            self.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {value}", None)
            self._drop_sequence(old_db_table, field.column)

    def _check_sql(self, name: str, check: str) -> str:
        return f"CONSTRAINT {self.quote_name(name)} {named_check(name, check)}"

    def _collate_sql(
        self, collation: str | None, old_collation: str | None = None, table_name: str | None = None
    ) -> str:
        return f"COLLATE {self.quote_name(collation)}" if collation else ""

    def _unique_sql(self, model: Any, fields: Any, name: str, **options: Any) -> None:
        """Make a named unique constraint an index, once the table is there."""
        sql = self._create_unique_sql(model, fields, name, **options)
        if sql:
            self.deferred_sql.append(sql)

    def _create_unique_sql(
        self,
        model: Any,
        fields: Any,
        name: str | None = None,
        condition: str | None = None,
        nulls_distinct: bool | None = None,
        **options: Any,
    ) -> Statement | None:
        """
        Return the statement that makes a unique index.

        DuckDB has no partial index: one with a condition covers expressions
        that are NULL, and so never equal, where the condition does not hold.
        """
        sql: Any = super()._create_unique_sql(  # type: ignore[misc]
            model, fields, name, condition=condition, nulls_distinct=nulls_distinct, **options
        )
        if sql is not None and (condition or nulls_distinct is False):
            nullable = [each.null for each in fields] if nulls_distinct is False else None
            sql.parts["columns"] = _UniqueWhere(sql.parts["columns"], condition, nullable)
        return sql

    def _field_should_be_indexed(self, model: Any, field: Any) -> bool:
        """Index what asks for it, but no foreign key: a scan is fast, keeping an index is not."""
        return field.db_index and not field.unique and field.remote_field is None

    def _indexed(self, model: Any, field: Any) -> bool:
        return self._field_should_be_indexed(model, field)

    # Changing a table, or making it anew.

    def _shape(self, model: Any, table: str | None = None) -> Shape:
        """
        Return the shape of the model's table.

        `sqlmigrate` asks for tables that are not there yet: their model describes
        them. Where its expressions name a field that was renamed, as Django's
        states do, the table itself has to be there.
        """
        if self.collect_sql:
            with suppress(FieldError, FieldDoesNotExist):
                return self._modelled(model, table or model._meta.db_table)
        with self.connection.cursor() as cursor:
            return read_shape(cursor, table or model._meta.db_table, self.quote_name)

    def _modelled(self, model: Any, table: str) -> Shape:
        """Return the shape that `create_model` would give the model's table, called `table`."""
        columns, constraints, statements = [], [], list(self._model_indexes_sql(model))
        for field in model._meta.local_concrete_fields:
            column, own = self._described(model, field)
            columns.append(replace(column, comment=field.db_comment))
            constraints += own
        for fields in model._meta.unique_together:
            each = [model._meta.get_field(name) for name in fields]
            statements.append(self._create_unique_sql(model, each))
        for constraint in model._meta.constraints:
            if isinstance(constraint, CheckConstraint):
                sql = str(constraint.constraint_sql(model, self))
                constraints.append(Constraint("CHECK", (), sql))
            elif isinstance(constraint, UniqueConstraint):
                statements.append(constraint.create_sql(model, self))
        indexes = []
        for statement in statements:
            if statement is not None:
                statement.rename_table_references(model._meta.db_table, table)
                indexes.append(_index_shape(statement))
        comment = model._meta.db_table_comment or None
        named = self._as_named(table, indexes)
        return Shape(table, tuple(columns), tuple(constraints), named, comment)

    def _as_named(self, table: str, indexes: Sequence[IndexShape]) -> tuple[IndexShape, ...]:
        """Give indexes the names they have in the database: a renamed table's keep theirs."""
        there: tuple[IndexShape, ...] = ()
        with suppress(ProgrammingError), self.connection.cursor() as cursor:
            there = read_shape(cursor, self._was.get(table, table), self.quote_name).indexes
        wanted = {each.name for each in indexes}
        other = {
            (each.unique, each.columns): each.name for each in there if each.name not in wanted
        }
        known = {each.name for each in there}
        return tuple(
            each
            if each.name in known or None in each.columns
            else replace(each, name=other.get((each.unique, each.columns), each.name))
            for each in indexes
        )

    def _alter_table(
        self,
        shape: Shape,
        dropped: Sequence[IndexShape],
        statements: Sequence[str],
        made: Sequence[IndexShape],
    ) -> None:
        """Run ALTER TABLE with the indexes `dropped` before and `made` after it."""
        for index in dropped:
            self.execute(f"DROP INDEX {self.quote_name(index.name)}", None)
        for each in statements:
            self.execute(f"ALTER TABLE {self.quote_name(shape.table)} {each}", None)
        for index in made:
            self._create_index(index, shape.table)

    def _create_index(self, index: IndexShape, table: str) -> None:
        self.execute(index.create_sql(table, self.quote_name), None)
        if index.comment:
            name = self.quote_name(index.name)
            self.execute(f"COMMENT ON INDEX {name} IS {literal(index.comment)}", None)

    def _remake(self, shape: Shape, values: dict[str, str], table: str | None = None) -> None:
        """
        Make the table anew in `shape`, called `table` if its name changes.

        values: SQL for the columns that are not just copied.
        Raises NotSupportedError if a foreign key refers to the table, which
        only other clients make.
        """
        quote, old, kept = self.quote_name, shape.table, table or shape.table
        self._refuse_referred(old)
        new = f"levada_new_{unquoted(old)}"
        copied = [column.name for column in shape.columns if not column.generated]
        columns = ", ".join(map(quote, copied))
        selected = ", ".join(values.get(name, quote(name)) for name in copied)
        self.execute(shape.create_sql(new, quote), None)
        self.execute(
            f"INSERT INTO {quote(new)} ({columns}) SELECT {selected} FROM {quote(old)}", None
        )
        self.execute(f"DROP TABLE {quote(old)}", None)
        self.execute(f"ALTER TABLE {quote(new)} RENAME TO {quote(kept)}", None)
        self._fresh.add(unquoted(kept))
        for index in shape.indexes:
            self._create_index(index, kept)
        if shape.comment:
            self.execute(f"COMMENT ON TABLE {quote(kept)} IS {literal(shape.comment)}", None)
        for column in shape.columns:
            if column.comment:
                self._comment(kept, column.name, column.comment)

    def _refuse_referred(self, table: str) -> None:
        """Raise NotSupportedError if foreign keys refer to the table."""
        if self.collect_sql:
            return
        with self.connection.cursor() as cursor:
            referring = [
                row[0] for row in introspection.rows(cursor, introspection.REFERRING, table)
            ]
        if referring:
            raise NotSupportedError(
                f"{table} has to be made anew for this change, but a foreign key of "
                f"{referring[0]} refers to it and DuckDB drops no foreign keys. "
                f"Make {referring[0]} anew without its foreign key first."
            )

    def _described(self, model: Any, field: Any) -> tuple[Column, list[Constraint]]:
        """Return a field's column and the constraints that are its own."""
        params = field.db_parameters(connection=self.connection)
        name, quoted = unquoted(field.column), self.quote_name(field.column)
        definition = self._type_of(field)
        if field.generated:
            generated, _ = self._column_generated_sql(field)
            return Column(name, f"{definition} {generated}", generated=True), []
        default = self._standing_default(model, field)
        definition += f" DEFAULT {default}" if default is not None else ""
        definition += "" if field.null else " NOT NULL"
        constraints = []
        if field.primary_key:
            constraints.append(Constraint("PRIMARY KEY", (name,), f"PRIMARY KEY ({quoted})"))
        elif field.unique:
            constraints.append(Constraint("UNIQUE", (name,), f"UNIQUE ({quoted})"))
        if params["check"]:
            constraints.append(Constraint("CHECK", (name,), f"CHECK ({params['check']})"))
        return Column(name, definition), constraints

    def _type_of(self, field: Any) -> str:
        """Return a field's type with its collation."""
        params = field.db_parameters(connection=self.connection)
        collate = self._collate_sql(params.get("collation"))
        return f"{params['type']} {collate}" if collate else params["type"]

    def _standing_default(self, model: Any, field: Any) -> str | None:
        """Return the default that stays with the column, None without one."""
        if _is_auto(field):
            return self._next_value(model, field)
        return self.db_default_sql(field)[0] if field.has_db_default() else None

    def _has_default(self, field: Any) -> bool:
        """Say whether the field has a value for rows that lack one."""
        return field.has_db_default() or self.effective_default(field) is not None

    def _default_of(self, model: Any, field: Any) -> str:
        """Return what an added column holds in the rows that are there."""
        standing = self._standing_default(model, field)
        if standing is not None:
            return standing
        kind = field.db_parameters(connection=self.connection)["type"]
        return f"CAST({literal(self.effective_default(field))} AS {kind})"

    def _converted(self, model: Any, old_field: Any, new_field: Any) -> str:
        """Return how the old column's value becomes the new one's."""
        old = self.quote_name(old_field.column)
        new_type = new_field.db_parameters(connection=self.connection)["type"]
        converted = old
        if not _same_type(new_type, old_field.db_parameters(connection=self.connection)["type"]):
            converted = f"CAST({old} AS {new_type})"
        if old_field.null and not new_field.null and self._has_default(new_field):
            converted = f"coalesce({converted}, {self._default_of(model, new_field)})"
        return converted

    def _check_text(self, model: Any, field: Any) -> str | None:
        """Return the text under which the check of the field's type is kept."""
        check = field.db_parameters(connection=self.connection)["check"]
        if not check or self.collect_sql:
            return f"CHECK ({check})"
        return self._as_stored(self._shape(model), f"CHECK ({check})")

    def _as_stored(self, shape: Shape, sql: str) -> str:
        """Return a check as DuckDB would keep it, by letting it keep it for a moment."""
        probe = f"levada_probe_{unquoted(shape.table)}"
        bare = replace(shape, constraints=(Constraint("CHECK", (), sql),))
        with self.connection.cursor() as cursor:
            cursor.execute(bare.create_sql(probe, self.quote_name), None)
            stored = read_shape(cursor, probe, self.quote_name).constraints[0].sql
            cursor.execute(f"DROP TABLE {self.quote_name(probe)}", None)
        return stored

    def _comment_column(self, model: Any, field: Any, removed: bool = False) -> None:
        """Write the field's comment; without one, remove what is there if `removed` says so."""
        if field.db_comment or removed:
            self._comment(model._meta.db_table, field.column, field.db_comment or None)

    def _comment(self, table: str, column: str, comment: str | None) -> None:
        named = f"{self.quote_name(table)}.{self.quote_name(column)}"
        self.execute(f"COMMENT ON COLUMN {named} IS {literal(comment)}", None)


class _UniqueWhere:
    """
    The columns of a unique index, turned into expressions when the statement is written.

    condition: rows without it are left out. nullable: which of the columns may
    be NULL, if two NULLs are to be equal.
    """

    def __init__(self, columns: Any, condition: str | None, nullable: list[bool] | None) -> None:
        self.columns, self.condition, self.nullable = columns, condition, nullable

    def references_table(self, table: str) -> bool:
        return self.columns.references_table(table)

    def references_column(self, table: str, column: str) -> bool:
        return self.columns.references_column(table, column)

    def references_index(self, table: str, index: str) -> bool:
        return self.columns.references_index(table, index)

    def rename_table_references(self, old_table: str, new_table: str) -> None:
        self.columns.rename_table_references(old_table, new_table)

    def rename_column_references(self, table: str, old_column: str, new_column: str) -> None:
        self.columns.rename_column_references(table, old_column, new_column)
        if self.condition and self.columns.table == table:
            self.condition = rename_identifier(self.condition, old_column, new_column)

    def __str__(self) -> str:
        return ", ".join(
            self._expression(number, each)
            for number, each in enumerate(listed(f"({self.columns})"))
        )

    def _expression(self, number: int, sql: str) -> str:
        if self.nullable is not None and (not self.nullable or self.nullable[number]):
            sql = f"({equal_if_null(sql)})"
        return only_where(self.condition, sql) if self.condition else sql


def _index_shape(sql: Statement) -> IndexShape:
    text = str(sql)
    name = unquoted(str(sql.parts["name"]))
    return IndexShape(name, text.startswith("CREATE UNIQUE"), tuple(listed(text)))


def _is_auto(field: Any) -> bool:
    return field.get_internal_type() in AUTO_FIELDS


def _is_constant(default: Any) -> bool:
    """Say whether ADD COLUMN takes a default for NOT NULL: no call, no cast that is one."""
    value = default.value if isinstance(default, Value) else default
    return value is None or isinstance(value, (str, int, float, Decimal))


def _same_type(one: str, other: str) -> bool:
    """Say whether two types, or definitions, are one to DuckDB, whose text has no length."""
    return _TEXT_LENGTH.sub("VARCHAR", one) == _TEXT_LENGTH.sub("VARCHAR", other)


def _only(columns: Sequence[str | None], name: str) -> bool:
    return len(columns) == 1 and (columns[0] or "").lower() == name.lower()


def _guarded(action: Callable[..., Any]) -> Callable[..., Any]:
    """Leave the tables of replicated models to the applier, and do all of an action or nothing."""

    def guarded(self: DatabaseSchemaEditor, model: Any, *args: Any, **options: Any) -> Any:
        if model._meta.label in replicated_in(self.connection.alias):
            return None
        with self.together():
            return action(self, model, *args, **options)

    guarded.__name__, guarded.__doc__ = action.__name__, action.__doc__
    return guarded


for _action in (
    "create_model", "delete_model", "add_field", "remove_field", "alter_field",
    "alter_db_table", "alter_db_table_comment", "alter_unique_together", "alter_index_together",
    "add_index", "remove_index", "rename_index", "add_constraint", "remove_constraint",
):  # fmt: skip
    setattr(DatabaseSchemaEditor, _action, _guarded(getattr(DatabaseSchemaEditor, _action)))
