"""What DuckDB can do, said honestly: Django refuses the rest by name."""

from __future__ import annotations

from django.db.backends.base.features import BaseDatabaseFeatures
from django.utils.functional import cached_property


class DatabaseFeatures(BaseDatabaseFeatures):
    """Flags of the DuckDB backend."""

    minimum_database_version = (2, 0)

    # Transactions. DuckDB has no savepoints; ours run the transaction's
    # statements again, see savepoints.py.
    supports_transactions = True
    can_release_savepoints = True
    can_rollback_ddl = True
    atomic_transactions = True
    has_select_for_update = False
    can_defer_constraint_checks = False
    # DuckDB runs an update as delete and insert and checks a foreign key in
    # between, so that updating a referenced row fails.
    supports_foreign_keys = False
    can_introspect_foreign_keys = False
    can_create_inline_fk = False
    indexes_foreign_keys = False
    supports_on_delete_db_cascade = False
    supports_on_delete_db_default = False
    supports_on_delete_db_null = False

    # Types.
    has_native_uuid_field = True
    has_native_duration_field = True
    has_native_boolean_field = True
    has_native_json_field = True
    has_json_operators = False
    supports_temporal_subtraction = True
    supports_timezones = False
    supports_json_field_contains = True
    json_key_contains_list_matching_requires_list = True
    supports_unlimited_charfield = True
    supports_no_precision_decimalfield = False
    # COLLATE works in queries. The type of a column that has one does not show it.
    supports_collation_on_charfield = False
    supports_collation_on_textfield = False
    supports_non_deterministic_collations = False
    prohibits_null_characters_in_text_exception = None

    # Statements.
    can_return_columns_from_insert = True
    can_return_rows_from_bulk_insert = True
    can_return_rows_from_update = True
    supports_update_conflicts = True
    supports_update_conflicts_with_target = True
    supports_unspecified_pk = True
    can_distinct_on_fields = True
    allows_group_by_selected_pks = False
    supports_aggregate_filter_clause = True
    supports_aggregate_order_by_clause = True
    supports_any_value = True
    supports_over_clause = True
    supports_frame_range_fixed_distance = True
    supports_frame_exclusion = True
    supports_logical_xor = False
    supports_slicing_ordering_in_compound = True
    supports_regex_backreferencing = False
    supports_date_lookup_using_string = True
    greatest_least_ignores_nulls = True
    supports_default_keyword_in_insert = True
    supports_default_keyword_in_bulk_insert = True
    supports_expression_defaults = True
    requires_literal_defaults = True
    supported_explain_formats = {"TEXT", "JSON", "HTML", "GRAPHVIZ", "YAML", "MERMAID"}
    rounds_to_even = False

    # Tables and indexes.
    ignores_table_name_case = True
    supports_partial_indexes = False
    supports_functions_in_partial_indexes = False
    supports_covering_indexes = False
    supports_expression_indexes = True
    supports_index_column_ordering = False
    supports_deferrable_unique_constraints = False
    supports_nulls_distinct_unique_constraints = False
    supports_comments = True
    supports_comments_inline = False
    supports_stored_generated_columns = False
    supports_virtual_generated_columns = True
    can_rename_index = False
    can_alter_table_drop_column = False
    can_introspect_check_constraints = False
    can_clone_databases = False
    introspected_field_types = {
        **BaseDatabaseFeatures.introspected_field_types,
        "AutoField": "AutoField",
        "CharField": "TextField",
        "GenericIPAddressField": "TextField",
        "PositiveBigIntegerField": "BigIntegerField",
        "PositiveIntegerField": "IntegerField",
        "PositiveSmallIntegerField": "SmallIntegerField",
    }

    supports_uuid4_function = True
    supports_uuid4_function_in_default = True
    supports_uuid7_function = True
    supports_uuid7_function_shift = True

    test_collations = {
        "ci": "nocase",
        "cs": "binary",
        "non_default": "nocase",
        "swedish_ci": "sv",
        "virtual": None,  # a generated column takes no COLLATE
    }
    insert_test_table_with_defaults = "INSERT INTO {} DEFAULT VALUES"
    test_now_utc_template = "CAST(NOW() AT TIME ZONE 'UTC' AS TIMESTAMP)"

    # Django's tests that DuckDB cannot pass; docs/conformance.md counts them.
    django_test_expected_failures = {
        # EXPLAIN draws the parts of a union beside each other: 101 of them take 23 lines.
        "queries.test_explain.ExplainTests.test_multi_page_text_explain",
    }
    django_test_skips = {
        "DuckDB's joins return rows in any order; this test asks for none.": {
            "admin_utils.tests.NestedObjectsTests.test_siblings",
        },
        "Of two transactions that change one row, DuckDB lets one fail instead of wait.": {
            "delete_regress.tests.DeleteLockingTest.test_concurrent_delete",
        },
    }

    @cached_property
    def uses_savepoints(self) -> bool:
        """Whether OPTIONS let transactions have savepoints."""
        return self.connection.savepoint_bytes > 0

    @cached_property
    def nulls_order_largest(self) -> bool:
        """Whether NULL sorts as the largest value."""
        return self.connection.null_order == "postgresql"

    @cached_property
    def order_by_nulls_first(self) -> bool:
        """Whether NULL comes first in ascending order."""
        return self.connection.null_order == "sqlite"
