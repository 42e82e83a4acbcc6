"""Expressions that only DuckDB computes, and how they refuse another database."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db import NotSupportedError
from django.db.models import DateField, DateTimeField, Field, Func
from django.utils import timezone

from .parameters import literal

SQL = tuple[str, Sequence[Any]]


def refuse_elsewhere(what: str, connection: Any) -> None:
    """Raise NotSupportedError unless `connection` is DuckDB's."""
    if connection.vendor != "duckdb":
        raise NotSupportedError(
            f"{what} needs DuckDB, and the database {connection.alias!r} is {connection.vendor}. "
            f"Ask a DuckDB database: .using('analytics')"
        )


def sql_literal(value: Any) -> str:
    """Write a value as SQL for a template: a percent sign in it stays one."""
    return literal(value).replace("%", "%%")


def plain_field(field: Field[Any, Any]) -> Field[Any, Any]:
    """Return `field`, or what it points to if it is a foreign key."""
    while field.remote_field:
        field = field.target_field
    return field


class OnDuckDB:
    """Mixin of expressions that raise NotSupportedError on another database."""

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> SQL:
        """Write the expression."""
        refuse_elsewhere(type(self).__name__, connection)
        return super().as_sql(compiler, connection, **context)  # type: ignore[misc]


class TimeBucket(OnDuckDB, Func):
    """
    The start of the interval that a date or datetime lies in.

        Order.objects.annotate(quarter=TimeBucket("placed_at", timedelta(minutes=15)))

    width: a positive timedelta, or months as an integer: a month has no fixed
        length. origin: where a bucket starts; by default DuckDB's, Monday 2000-01-03
        for timedeltas and 2000-01-01 for months.
    tzinfo: the zone in which datetimes are cut, by default Django's current one.
    """

    function = "time_bucket"
    arity = 1

    def __init__(
        self,
        expression: Any,
        width: datetime.timedelta | int,
        *,
        origin: datetime.date | datetime.datetime | None = None,
        tzinfo: datetime.tzinfo | None = None,
        **extra: Any,
    ) -> None:
        is_months = isinstance(width, int) and not isinstance(width, bool)
        if not is_months and not isinstance(width, datetime.timedelta):
            raise TypeError("TimeBucket's width is a timedelta, or a number of months.")
        if width <= (0 if is_months else datetime.timedelta(0)):  # type: ignore[operator]
            raise ValueError("TimeBucket's width must be positive.")
        self.width, self.origin, self.tzinfo = width, origin, tzinfo
        super().__init__(expression, **extra)

    def _resolve_output_field(self) -> Field[Any, Any]:
        field = plain_field(self.source_expressions[0].output_field)
        if not isinstance(field, DateField):  # a DateTimeField is one as well
            raise TypeError(
                f"TimeBucket wants a date or a datetime, and was given a {type(field).__name__}."
            )
        return DateTimeField() if isinstance(field, DateTimeField) else DateField()

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> SQL:
        """Write time_bucket() around the moment as it reads in the zone."""
        refuse_elsewhere(type(self).__name__, connection)
        is_moment = isinstance(self.output_field, DateTimeField)
        sql, params = compiler.compile(self.source_expressions[0])
        zone = self._zone_name() if is_moment and settings.USE_TZ else None
        if zone is not None and zone == connection.timezone_name:
            zone = None
        home, there = sql_literal(connection.timezone_name), sql_literal(zone)
        if zone is not None:
            sql = f"timezone({there}, timezone({home}, {sql}))"
        arguments = [self._width_sql(), f"CAST({sql} AS {'TIMESTAMP' if is_moment else 'DATE'})"]
        if self.origin is not None:
            arguments.append(self._origin_sql(is_moment))
        bucket = f"time_bucket({', '.join(arguments)})"
        if zone is not None:
            bucket = f"timezone({home}, timezone({there}, {bucket}))"
        return (bucket if is_moment else f"CAST({bucket} AS DATE)"), params

    def _zone_name(self) -> str:
        zone = self.tzinfo or timezone.get_current_timezone()
        name = getattr(zone, "key", None) or ("UTC" if zone is datetime.UTC else None)
        if name is None:
            raise ValueError(f"TimeBucket wants a named time zone, such as ZoneInfo, not {zone!r}.")
        return str(name)

    def _width_sql(self) -> str:
        if isinstance(self.width, datetime.timedelta):
            return literal(self.width)
        return f"to_months({self.width})"

    def _origin_sql(self, is_moment: bool) -> str:
        origin = self.origin
        if isinstance(origin, datetime.datetime):
            if timezone.is_aware(origin):
                origin = timezone.make_naive(origin, self.tzinfo)
            return literal(origin)
        return f"CAST({literal(origin)} AS {'TIMESTAMP' if is_moment else 'DATE'})"
