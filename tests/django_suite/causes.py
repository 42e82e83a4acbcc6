"""
Why a test of Django was not run: every reason for a skip has its cause here.

A reason without one makes the run fail. What DuckDB lacks carries a probe
that `tests/unit/test_django_suite.py` runs: the day DuckDB learns it, that
test fails and the flag in features.py can go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from levada.stores.duckdb.features import DatabaseFeatures

_FEATURES = re.compile(r"Database doesn't support feature\(s\): (.+)")


@dataclass(frozen=True)
class Missing:
    """
    Flags of features.py that are False, and why.

    probe: statements that show it; the error or the rows of the last one contain `says`.
    """

    flags: tuple[str, ...]
    why: str
    probe: str = ""
    says: str = ""


_OTHERS = "Asks for a peculiarity that DuckDB does not have."

MISSING = (
    Missing(
        (
            "has_select_for_update",
            "has_select_for_update_nowait",
            "has_select_for_update_of",
            "has_select_for_update_skip_locked",
            "has_select_for_no_key_update",
        ),
        "DuckDB locks no rows: there is no SELECT … FOR UPDATE.",
        "CREATE TABLE t (a INTEGER); SELECT * FROM t FOR UPDATE",
        'syntax error at or near "FOR"',
    ),
    Missing(
        ("supports_stored_generated_columns",),
        "DuckDB computes a generated column when it is read, and stores none.",
        "CREATE TABLE t (a INTEGER, b INTEGER GENERATED ALWAYS AS (a + 1) STORED)",
        "Can not create a STORED generated column",
    ),
    Missing(
        (
            "supports_foreign_keys",
            "can_introspect_foreign_keys",
            "can_create_inline_fk",
            "indexes_foreign_keys",
            "supports_on_delete_db_cascade",
            "supports_on_delete_db_default",
            "supports_on_delete_db_null",
        ),
        "No foreign keys are made: DuckDB would refuse to update a row that others refer to.",
        "CREATE TABLE p (id INTEGER PRIMARY KEY, tags INTEGER[]);"
        "CREATE TABLE c (p INTEGER REFERENCES p (id));"
        "INSERT INTO p VALUES (1, [1]); INSERT INTO c VALUES (1);"
        "UPDATE p SET tags = [2]",
        "still referenced by a foreign key",
    ),
    Missing(
        ("can_defer_constraint_checks", "supports_deferrable_unique_constraints"),
        "DuckDB defers no constraint to the end of the transaction.",
        "CREATE TABLE t (a INTEGER UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        'syntax error at or near "DEFERRABLE"',
    ),
    Missing(
        ("supports_covering_indexes",),
        "DuckDB's indexes cover no further columns.",
        "CREATE TABLE t (a INTEGER, b INTEGER); CREATE INDEX i ON t (a) INCLUDE (b)",
        'syntax error at or near "INCLUDE"',
    ),
    Missing(
        ("supports_index_column_ordering",),
        "DuckDB takes DESC in an index and forgets it.",
        "CREATE TABLE t (a INTEGER); CREATE INDEX i ON t (a DESC);SELECT sql FROM duckdb_indexes()",
        "ON t(a);",
    ),
    Missing(
        ("allows_group_by_selected_pks",),
        "DuckDB wants every selected column in GROUP BY, beside a primary key too.",
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER); SELECT a, b FROM t GROUP BY a",
        "must appear in the GROUP BY clause",
    ),
    Missing(
        (
            "create_test_procedure_without_params_sql",
            "create_test_procedure_with_int_param_sql",
            "supports_callproc_kwargs",
        ),
        "DuckDB has no stored procedures.",
        "CREATE PROCEDURE p() AS BEGIN END",
        'syntax error at or near "PROCEDURE"',
    ),
    Missing(
        ("supports_regex_backreferencing",),
        "DuckDB's regular expressions are RE2: no backreferences.",
        r"SELECT regexp_matches('aa', '(a)\1')",
        "invalid escape sequence",
    ),
    Missing(
        ("can_introspect_materialized_views",),
        "DuckDB has no materialized views.",
        "CREATE MATERIALIZED VIEW m AS SELECT 1",
        'syntax error at or near "MATERIALIZED"',
    ),
    Missing(
        ("supports_tablespaces",),
        "DuckDB has no tablespaces.",
        "CREATE TABLE t (a INTEGER) TABLESPACE x",
        'syntax error at or near "TABLESPACE"',
    ),
    Missing(
        ("supports_no_precision_decimalfield",),
        "A DECIMAL of DuckDB without digits has 18, three after the point.",
        "SELECT typeof(CAST(1 AS DECIMAL))",
        "DECIMAL(18,3)",
    ),
    Missing(
        ("supports_timezones",),
        "Timestamps are stored in UTC without a zone, as on SQLite.",
    ),
    Missing(
        ("has_json_operators",),
        "JSON is asked by functions: there is no operator to inject into.",
    ),
    Missing(
        ("prohibits_null_characters_in_text_exception",),
        "DuckDB's text may hold the character of code 0.",
        "SELECT length('a' || chr(0) || 'b')",
        "3",
    ),
    Missing(
        (
            "interprets_empty_strings_as_nulls",
            "requires_explicit_null_ordering_when_grouping",
            "only_supports_unbounded_with_preceding_and_following",
            "max_query_params",
        ),
        _OTHERS,
    ),
)

REASONS = (
    (r"does not support integrity checks", MISSING[2].why),
    (
        r"supports_tuple_comparison_against_subquery",
        "Asks for the refusal of something DuckDB does.",
    ),
    (r"^Database has feature", "Asks for the refusal of something DuckDB does."),
    (r"column name length limit|doesn't support negative precision", _OTHERS),
    (
        r"PostgreSQL|[Pp]sycopg|MySQL|MariaDB|SQLite|sqlite|Oracle|oracledb|built-in database",
        "Is a test of another database.",
    ),
    (r"don't validate parameter types", "Is a test of another database."),
    (
        r"[Nn]o browsers|not configured|not installed|unavailable|required|requires jinja2"
        r"|No \w+ library|installed\.$|not detected",
        "Needs a browser, a server or a package that is not here.",
    ),
    (r"Python 3\.\d+|Python \d\.\d+ or", "Needs another version of Python."),
    (
        r"doesn't apply to|CookieSession|Cookie backend|case-sensitive file",
        "Does not apply, Django says.",
    ),
    (
        r"Fixture loading should not be|Dummy backend discards|covers async-only",
        "Does not apply, Django says.",
    ),
    (r"^Compares wall-clock|^Expects to be refused a file", "Fails here on every database."),
)
"""Patterns of reasons, the first that is found counts, and the cause."""

_BY_FLAG = {flag: missing.why for missing in MISSING for flag in missing.flags}


def cause_of(reason: str) -> str | None:
    """Return why a test was skipped, None where that is not explained."""
    if reason in DatabaseFeatures.django_test_skips:
        return reason
    if found := _FEATURES.search(reason):
        causes = (_BY_FLAG.get(flag.strip()) for flag in found[1].split(","))
        if cause := next((each for each in causes if each), None):
            return cause
    return next((cause for pattern, cause in REASONS if re.search(pattern, reason)), None)


def cause_of_expected(test: str) -> str | None:
    """Return why features.py expects `test` to fail; None where Django's own source does."""
    for cause, tests in DatabaseFeatures.expected_failures_by_cause.items():
        if test in tests:
            return cause
    return None
