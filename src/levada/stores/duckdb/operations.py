"""SQL as DuckDB writes it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Context, Decimal
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import DataError, NotSupportedError
from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.models import UniqueConstraint
from django.db.models.constants import OnConflict
from django.db.models.expressions import Col
from django.utils import timezone

from ...tables import TableSpec
from .ddl import covers_expressions
from .parameters import is_quoted, literal, unquoted

_DOUBLE = Context(prec=15)
"""A double tells 15 decimal digits for certain."""

_PARTS = {
    "year": "extract(year FROM {})",
    "iso_year": "extract(isoyear FROM {})",
    "quarter": "extract(quarter FROM {})",
    "month": "extract(month FROM {})",
    "week": "extract(week FROM {})",
    "day": "extract(day FROM {})",
    "week_day": "(extract(dow FROM {}) + 1)",
    "iso_week_day": "extract(isodow FROM {})",
    "hour": "extract(hour FROM {})",
    "minute": "extract(minute FROM {})",
    "second": "extract(second FROM {})",
    "microsecond": "(extract(microsecond FROM {}) %% 1000000)",
}
"""Django's name of a date's part to the expression that extracts it."""

_TRUNCATIONS = frozenset(
    ("year", "quarter", "month", "week", "day", "hour", "minute", "second", "microsecond")
)
_TEXT = frozenset(("CharField", "TextField", "SlugField", "FileField", "FilePathField"))
_PATTERN_LOOKUPS = frozenset(
    (
        *("iexact", "contains", "icontains", "startswith", "istartswith"),
        *("endswith", "iendswith", "regex", "iregex"),
    )
)
_OFFSET = re.compile(r"^(?:UTC)?([+-])(\d\d)(?::?(\d\d))?(?::?(\d\d))?$")


class DatabaseOperations(BaseDatabaseOperations):
    """How DuckDB writes what Django leaves to the database."""

    compiler_module = "levada.stores.duckdb.compiler"
    explain_prefix = "EXPLAIN"
    cast_char_field_without_max_length = "VARCHAR"
    cast_data_types = {
        "AutoField": "INTEGER",
        "BigAutoField": "BIGINT",
        "SmallAutoField": "SMALLINT",
    }
    set_operators = {"union": "UNION", "intersection": "INTERSECT", "difference": "EXCEPT"}
    # Names and literals.

    def quote_name(self, name: str) -> str:
        """Return `name` quoted; one that is a quoted name as a whole stays as it is."""
        name = str(name)  # Django takes a lazy one
        return name if is_quoted(name) else '"{}"'.format(name.replace('"', '""'))

    def max_name_length(self) -> int | None:
        """Return None: DuckDB has no limit."""
        return None

    def pk_default_value(self) -> str:
        """Return what lets the sequence choose."""
        return "DEFAULT"

    def no_limit_value(self) -> None:
        """Return None: OFFSET needs no LIMIT."""
        return

    def last_executed_query(self, cursor: Any, sql: str, params: Any) -> str:
        """Return the statement as it was run, its parameters written in, for a person to read."""
        sql = getattr(cursor, "last_sql", None) or sql
        if not params:
            return sql
        if isinstance(params, dict):
            return sql % {name: literal(value) for name, value in params.items()}
        return sql % tuple(literal(value) for value in params)

    # Dates and times. Timestamps are naive in the database, in the
    # connection's time zone (UTC unless DATABASES[…]["TIME_ZONE"] says else).

    def date_extract_sql(
        self, lookup_type: str, sql: str, params: Sequence[Any]
    ) -> tuple[str, Sequence[Any]]:
        """Extract a part of a date."""
        return _part(lookup_type, sql), params

    def time_extract_sql(
        self, lookup_type: str, sql: str, params: Sequence[Any]
    ) -> tuple[str, Sequence[Any]]:
        """Extract a part of a time."""
        return _part(lookup_type, sql), params

    def datetime_extract_sql(
        self, lookup_type: str, sql: str, params: Sequence[Any], tzname: str | None
    ) -> tuple[str, Sequence[Any]]:
        """Extract a part of a timestamp as it reads in `tzname`."""
        return _part(lookup_type, self._in_zone(sql, tzname)), params

    def date_trunc_sql(
        self, lookup_type: str, sql: str, params: Sequence[Any], tzname: str | None = None
    ) -> tuple[str, Sequence[Any]]:
        """Truncate to a date."""
        return f"CAST({_truncated(lookup_type, self._in_zone(sql, tzname))} AS DATE)", params

    def datetime_trunc_sql(
        self, lookup_type: str, sql: str, params: Sequence[Any], tzname: str | None
    ) -> tuple[str, Sequence[Any]]:
        """Truncate a timestamp as it reads in `tzname`."""
        zoned = self._in_zone(f"CAST({sql} AS TIMESTAMP)", tzname)
        return _truncated(lookup_type, zoned), params

    def time_trunc_sql(
        self, lookup_type: str, sql: str, params: Sequence[Any], tzname: str | None = None
    ) -> tuple[str, Sequence[Any]]:
        """Truncate to a time; DuckDB truncates timestamps only, so one of any day is made."""
        time = f"DATE '2000-01-01' + CAST({self._in_zone(sql, tzname)} AS TIME)"
        return f"CAST({_truncated(lookup_type, time)} AS TIME)", params

    def datetime_cast_date_sql(
        self, sql: str, params: Sequence[Any], tzname: str | None
    ) -> tuple[str, Sequence[Any]]:
        """Take the date of a timestamp as it reads in `tzname`."""
        return f"CAST({self._in_zone(sql, tzname)} AS DATE)", params

    def datetime_cast_time_sql(
        self, sql: str, params: Sequence[Any], tzname: str | None
    ) -> tuple[str, Sequence[Any]]:
        """Take the time of a timestamp as it reads in `tzname`."""
        return f"CAST({self._in_zone(sql, tzname)} AS TIME)", params

    def _in_zone(self, sql: str, tzname: str | None) -> str:
        """Move the naive timestamp `sql` from the connection's zone to `tzname`."""
        if not settings.USE_TZ or not tzname or tzname == self.connection.timezone_name:
            return sql
        utc = f"timezone({literal(self.connection.timezone_name)}, {sql})"
        offset = _OFFSET.match(tzname)
        if offset is None:
            return f"timezone({literal(tzname)}, {utc})".replace("%", "%%")
        sign, hours, minutes, seconds = offset.groups(default="0")
        total = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
        return f"(timezone('UTC', {utc}) {sign} to_seconds({total}))"

    def subtract_temporals(
        self, internal_type: str, lhs: tuple[str, Any], rhs: tuple[str, Any]
    ) -> tuple[str, tuple[Any, ...]]:
        """Subtract two dates, times or timestamps to a duration."""
        (left, left_params), (right, right_params) = lhs, rhs
        if internal_type == "TimeField":
            day = "DATE '2000-01-01'"
            sql = f"(({day} + CAST({left} AS TIME)) - ({day} + CAST({right} AS TIME)))"
        else:
            sql = f"(CAST({left} AS TIMESTAMP) - CAST({right} AS TIMESTAMP))"
        return sql, (*left_params, *right_params)

    # Values on their way in.

    def adapt_datefield_value(self, value: Any) -> Any:
        """Return the date itself: DuckDB binds it."""
        return value

    def adapt_timefield_value(self, value: Any) -> Any:
        """Return the time itself. Raises ValueError for an aware one."""
        if isinstance(value, datetime.time) and timezone.is_aware(value):
            raise ValueError("DuckDB backend does not support timezone-aware times.")
        return value

    def adapt_datetimefield_value(self, value: Any) -> Any:
        """Return a naive datetime in the connection's zone. Raises ValueError."""
        if not isinstance(value, datetime.datetime) or timezone.is_naive(value):
            return value
        if not settings.USE_TZ:
            raise ValueError(
                "DuckDB backend does not support timezone-aware datetimes when USE_TZ is False."
            )
        return timezone.make_naive(value, self.connection.timezone)

    def adapt_decimalfield_value(
        self, value: Any, max_digits: int | None = None, decimal_places: int | None = None
    ) -> Any:
        """Return the Decimal itself: DuckDB binds all of its digits."""
        return value

    def adapt_durationfield_value(self, value: Any) -> Any:
        """Return the timedelta itself: the column is an INTERVAL."""
        return value

    def adapt_ipaddressfield_value(self, value: Any) -> Any:
        """Return the address as text, None for an empty one."""
        return value or None

    # Values on their way out.

    def get_db_converters(self, expression: Any) -> list[Callable[..., Any]]:
        """Return converters for the types DuckDB returns otherwise than Django wants them."""
        converters = super().get_db_converters(expression)
        internal_type = expression.output_field.get_internal_type()
        if internal_type == "DateTimeField" and settings.USE_TZ:
            converters.append(_aware_in(self.connection.timezone or datetime.UTC))
        elif not isinstance(expression, Col):
            converter = _COMPUTED.get(internal_type)
            if converter is not None:
                converters.append(converter)
        return converters

    # Lookups and expressions.

    def lookup_cast(self, lookup_type: str, internal_type: str | None = None) -> str:
        """Compare as text where a pattern is looked up in something else."""
        if lookup_type in _PATTERN_LOOKUPS and internal_type not in _TEXT:
            return "CAST(%s AS VARCHAR)"
        return "%s"

    def regex_lookup(self, lookup_type: str) -> str:
        """Return the template of a regular expression's lookup (RE2 syntax)."""
        if lookup_type == "regex":
            return "regexp_matches(%s, %s)"
        return "regexp_matches(%s, %s, 'i')"

    def combine_expression(self, connector: str, sub_expressions: list[str]) -> str:
        """Join two expressions by an operator."""
        if connector == "^":
            return "POWER({})".format(", ".join(sub_expressions))
        if connector == "#":
            return "xor({})".format(", ".join(sub_expressions))
        if connector == "<<":  # DuckDB shifts no negative number to the left
            left, right = sub_expressions
            return f"({left} * (CAST(1 AS BIGINT) << CAST({right} AS INTEGER)))"
        if connector == ">>":
            left, right = sub_expressions
            return f"(CAST({left} AS BIGINT) >> CAST({right} AS INTEGER))"
        return super().combine_expression(connector, sub_expressions)

    def distinct_sql(
        self, fields: Sequence[str], params: Sequence[Sequence[Any]]
    ) -> tuple[list[str], list[Any]]:
        """Return DISTINCT, or DISTINCT ON the given fields."""
        if fields:
            flat = [value for each in params for value in each]
            return ["DISTINCT ON ({})".format(", ".join(fields))], flat
        return ["DISTINCT"], []

    def explain_query_prefix(self, format: str | None = None, **options: Any) -> str:
        """Return EXPLAIN with its options; the only one is `analyze`. Raises ValueError."""
        analyze = options.pop("analyze", False)
        super().explain_query_prefix(format, **options)
        parts = ["ANALYZE"] if analyze else []
        if format:
            parts.append(f"FORMAT {format.upper()}")
        return f"EXPLAIN ({', '.join(parts)})" if parts else "EXPLAIN"

    # Writing.

    def bulk_insert_sql(self, fields: Any, placeholder_rows: Iterable[Sequence[str]]) -> str:
        """Return a VALUES list."""
        return "VALUES {}".format(", ".join(f"({', '.join(row)})" for row in placeholder_rows))

    def returning_columns(self, fields: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        """Return the RETURNING clause."""
        if not fields:
            return "", ()
        quote = self.quote_name
        columns = (f"{quote(each.model._meta.db_table)}.{quote(each.column)}" for each in fields)
        return "RETURNING " + ", ".join(columns), ()

    return_insert_columns = returning_columns  # its name up to Django 5.2

    def fetch_returned_rows(self, cursor: Any, returning_params: Any) -> list[tuple[Any, ...]]:
        """Return all rows of RETURNING."""
        return cursor.fetchall()

    def fetch_returned_insert_rows(self, cursor: Any) -> list[tuple[Any, ...]]:
        """Return all rows of RETURNING, as Django 5.2 asks."""
        return cursor.fetchall()

    def on_conflict_suffix_sql(
        self,
        fields: Any,
        on_conflict: OnConflict | None,
        update_fields: Iterable[str],
        unique_fields: Iterable[str],
    ) -> str:
        """
        Return the ON CONFLICT clause, '' where none is wanted.

        Raises NotSupportedError for ignoring conflicts beside a unique index on
        an expression: DuckDB 2.0.0 looks up a column's value in it instead of
        the expression's, and leaves out rows that are in nobody's way.
        """
        if on_conflict == OnConflict.IGNORE:
            for each in fields[0].model._meta.constraints:
                if isinstance(each, UniqueConstraint) and covers_expressions(each):
                    raise NotSupportedError(
                        f"ignore_conflicts=True beside {each.name!r} of "
                        f"{fields[0].model._meta.label}: in DuckDB, ON CONFLICT DO NOTHING "
                        "misreads a unique index on an expression. Filter the objects first, "
                        "or use update_conflicts=True with unique_fields."
                    )
            return "ON CONFLICT DO NOTHING"
        if on_conflict == OnConflict.UPDATE:
            target = ", ".join(map(self.quote_name, unique_fields))
            names = list(map(self.quote_name, update_fields))
            changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in names)
            return f"ON CONFLICT ({target}) DO UPDATE SET {changes}"
        return ""

    # Flushing and sequences.

    def sql_flush(
        self,
        style: Any,
        tables: Sequence[str],
        *,
        reset_sequences: bool = False,
        allow_cascade: bool = False,
    ) -> list[str]:
        """
        Return the statements that empty `tables`; a replica is then one that was never filled.

        Raises CommandError where the database holds nothing but replicas.
        """
        statements = self._forget_replica(tables) + [
            f"{style.SQL_KEYWORD('DELETE')} {style.SQL_KEYWORD('FROM')} "
            f"{style.SQL_FIELD(self.quote_name(table))};"
            for table in tables
        ]
        if reset_sequences:
            wanted = set(map(unquoted, tables))
            statements += self.sequence_reset_by_name_sql(
                style,
                [
                    each
                    for each in self.connection.introspection.sequence_list()
                    # None: the many-to-many table of a replica, which has no sequence.
                    if each["column"] and unquoted(each["table"]) in wanted
                ],
            )
        return statements

    def _forget_replica(self, tables: Iterable[str]) -> list[str]:
        """
        Return what drops the position of a replica whose tables are emptied; the keeper refills it.

        It comes first: an applier that commits meanwhile then conflicts with
        the flush, and one of them fails and tries again.
        """
        if "levada_held" not in self.connection.introspection.table_names():
            return []
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT spec FROM levada_held")
            held = {TableSpec.from_json(spec).table for (spec,) in cursor.fetchall()}
        emptied = set(map(unquoted, tables))
        if not held & emptied:
            return []
        if emptied <= held:
            # Nor was such a database migrated, which Django takes for granted after a flush.
            raise CommandError(
                f"{self.connection.alias!r} holds nothing but replicas, whose rows the source "
                f"keeps. To build them again: manage.py levada rebuild {self.connection.alias}"
            )
        return ["DELETE FROM levada_position;", "DELETE FROM levada_held;"]

    def sequence_reset_by_name_sql(
        self, style: Any, sequences: Sequence[dict[str, Any]]
    ) -> list[str]:
        """Return the statements that start `sequences` at 1 again."""
        return [
            f"{style.SQL_KEYWORD('SELECT')} setval({self._sequence(each)}, 1, false);"
            for each in sequences
        ]

    def sequence_reset_sql(self, style: Any, model_list: Sequence[Any]) -> list[str]:
        """Return the statements that let each sequence go on after its table's highest key."""
        statements = []
        for model in model_list:
            for field in model._meta.local_fields:
                if field.get_internal_type() not in self.cast_data_types:
                    continue
                table = model._meta.db_table
                sequence = self._sequence({"table": table, "column": field.column})
                highest = f"max({self.quote_name(field.column)})"
                statements.append(
                    f"{style.SQL_KEYWORD('SELECT')} "
                    f"setval({sequence}, coalesce({highest}, 1), {highest} IS NOT NULL) "
                    f"{style.SQL_KEYWORD('FROM')} {style.SQL_TABLE(self.quote_name(table))};"
                )
        return statements

    def sequence_name(self, table: str, column: str) -> str:
        """Return the name of the sequence behind an automatic key."""
        return f"{unquoted(table)}_{unquoted(column)}_seq"

    def _sequence(self, sequence: dict[str, Any]) -> str:
        name = sequence.get("name") or self.sequence_name(sequence["table"], sequence["column"])
        return literal(self.quote_name(name))


def _part(lookup_type: str, sql: str) -> str:
    template = _PARTS.get(lookup_type)
    if template is None:
        raise ValueError(f"Invalid lookup type: {lookup_type!r}")
    return template.format(sql)


def _truncated(kind: str, sql: str) -> str:
    if kind not in _TRUNCATIONS:
        raise DataError(f"Invalid lookup type: {kind!r}")
    return f"date_trunc('{kind}', {sql})"


def _aware_in(zone: datetime.tzinfo) -> Callable[..., Any]:
    """Return a converter that gives naive datetimes the connection's zone."""

    def aware(value: Any, expression: Any, connection: Any) -> Any:
        # A raw expression or a truncation may already have a zone.
        if type(value) is datetime.datetime and value.tzinfo is None:
            return value.replace(tzinfo=zone)
        if type(value) is datetime.date:
            return datetime.datetime(value.year, value.month, value.day, tzinfo=zone)
        return value

    return aware


def _to_decimal(value: Any, expression: Any, connection: Any) -> Any:
    if value is None or isinstance(value, Decimal):
        return value
    if isinstance(value, float):
        return _DOUBLE.create_decimal_from_float(value)
    return Decimal(value)


def _to_float(value: Any, expression: Any, connection: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _to_date(value: Any, expression: Any, connection: Any) -> Any:
    return value.date() if isinstance(value, datetime.datetime) else value


_COMPUTED = {"DecimalField": _to_decimal, "FloatField": _to_float, "DateField": _to_date}
"""Converters of computed values; a column's own values already have their type."""
