"""What of the DuckDB backend is different for a lake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core import checks
from django.db import NotSupportedError, router
from django.db.backends.base.validation import BaseDatabaseValidation
from django.db.models import UniqueConstraint

from .. import ownership
from ..creation import DatabaseCreation
from ..features import DatabaseFeatures
from ..operations import DatabaseOperations
from .schema import LakeSchemaEditor

if TYPE_CHECKING:
    from ..base import DatabaseWrapper


class LakeFeatures(DatabaseFeatures):
    """What a lake can do."""

    # The newest DuckDB whose extensions ducklake and postgres_scanner are packaged.
    minimum_database_version = (1, 5)

    # DuckLake 1.5.5 loses a table that one transaction changes in two ways: a
    # column dropped and the table renamed, say. So each change is one of its own.
    can_rollback_ddl = False
    can_clone_databases = False
    can_return_columns_from_insert = False
    can_return_rows_from_bulk_insert = False
    can_return_rows_from_update = False
    supports_ignore_conflicts = False
    supports_update_conflicts = False
    supports_update_conflicts_with_target = False
    supports_table_check_constraints = False
    supports_column_check_constraints = False
    supports_expression_indexes = False
    supports_virtual_generated_columns = False
    supports_expression_defaults = False
    supports_unspecified_pk = False
    allow_sliced_subqueries_with_in = True


class LakeOperations(DatabaseOperations):
    """SQL of a lake."""

    compiler_module = "levada.stores.duckdb.ducklake.compiler"

    def sql_flush(
        self,
        style: Any,
        tables: Sequence[str],
        *,
        reset_sequences: bool = False,
        allow_cascade: bool = False,
    ) -> list[str]:
        """Return the statements that empty `tables`; keys go on where they were."""
        return super().sql_flush(style, tables, reset_sequences=False, allow_cascade=allow_cascade)

    def sequence_reset_sql(self, style: Any, model_list: Sequence[Any]) -> list[str]:
        """Return nothing: each key that is written moves its sequence on."""
        return []


class LakeValidation(BaseDatabaseValidation):
    """Warns of unique values, which a lake does not enforce; Django itself of check constraints."""

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Warn of each model that wants several fields to be unique together."""
        alias = self.connection.alias
        models = (
            model
            for config in apps.get_app_configs()
            for model in router.get_migratable_models(config, alias, include_auto_created=False)
            if model._meta.managed and not model._meta.proxy
        )
        return [
            *super().check(**kwargs),
            *(self._warning(model) for model in models if _wants_unique(model)),
        ]

    def check_field(self, field: Any, **options: Any) -> list[checks.CheckMessage]:
        """Warn of a unique field: nothing stops a second row with its value."""
        if not getattr(field, "unique", False) or field.primary_key:
            return []
        return [self._warning(field)]

    def _warning(self, of: Any) -> checks.Warning:
        return checks.Warning(
            f"{self.connection.alias} is a DuckLake, which cannot enforce unique values.",
            hint="Check for an existing row before you write one, or ask for none to be unique.",
            obj=of,
            id="levada.W020",
        )


def _wants_unique(model: Any) -> bool:
    return bool(model._meta.unique_together) or any(
        isinstance(each, UniqueConstraint) for each in model._meta.constraints
    )


class LakeCreation(DatabaseCreation):
    """Makes and removes the test lake: a schema of its own in the same catalogue."""

    def _get_test_db_name(self) -> str:
        name = self.connection.settings_dict["TEST"]["NAME"]
        return str(name or f"test_{self.connection.settings_dict['NAME']}")

    def _create_test_db(self, verbosity: int, autoclobber: bool, keepdb: bool = False) -> str:
        name = self._get_test_db_name()
        if not keepdb:
            self._remove(name)
        return name

    def _remove(self, name: str) -> None:
        """Drop the lake's schema in the catalogue, and its files where they are in a folder."""
        settings = self.connection.settings_dict
        before, settings["NAME"] = settings["NAME"], name
        try:
            lake = self.connection.lake
            self.connection.close()
            ownership.release(lake.path)
            lake.drop()
        finally:
            settings["NAME"] = before

    def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> None:
        """Refuse: the copy would need a catalogue and files of its own."""
        raise NotSupportedError(
            f"The test lake of {self.connection.alias} cannot be cloned. Run the tests of this "
            f"alias without --parallel."
        )

    def test_db_signature(self) -> tuple[Any, ...]:
        """Return what tells two test lakes apart."""
        return (self.connection.lake.path, self._get_test_db_name())


def adapt(wrapper: DatabaseWrapper) -> None:
    """Give a connection that is not set up yet the parts of a lake."""
    wrapper.features_class = LakeFeatures
    wrapper.ops_class = LakeOperations
    wrapper.creation_class = LakeCreation
    wrapper.validation_class = LakeValidation
    wrapper.SchemaEditorClass = LakeSchemaEditor
