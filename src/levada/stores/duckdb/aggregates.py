"""
Aggregates that DuckDB has and Django does not.

    from levada.stores.duckdb.aggregates import Median

    Order.objects.using("analytics").values("country").annotate(middle=Median("total"))

They take `filter` and `default`, work in `aggregate()`, `annotate()`,
subqueries and `Window()`, and raise NotSupportedError on another database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import (
    Aggregate,
    BigIntegerField,
    DateField,
    DateTimeField,
    DecimalField,
    DurationField,
    Field,
    FloatField,
    IntegerField,
)
from django.db.models.expressions import OrderByList

from .expressions import SQL, OnDuckDB, plain_field, refuse_elsewhere, sql_literal
from .fields import ListField, MapField

__all__ = [
    "ApproxCountDistinct",
    "ApproxQuantile",
    "ArgMax",
    "ArgMin",
    "Histogram",
    "ListAgg",
    "Median",
    "Mode",
    "Quantile",
]


class _Aggregate(OnDuckDB, Aggregate):  # type: ignore[misc]
    """An aggregate of the type of its first expression."""

    def _source_field(self) -> Field[Any, Any]:
        return plain_field(self.source_expressions[0].output_field)

    def _resolve_output_field(self) -> Field[Any, Any]:
        return self._source_field()

    def _rewritten(self, arguments: str) -> Any:
        """Return a copy whose `%(expressions)s` are `arguments`; `filter` keeps its place."""
        copy = self.copy()
        copy.template = str(self.template).replace("%(expressions)s", arguments)
        return copy


class ApproxCountDistinct(_Aggregate):
    """About how many distinct values there are, within a few per cent (HyperLogLog)."""

    function = "approx_count_distinct"
    name = "ApproxCountDistinct"
    arity = 1
    output_field = IntegerField()
    empty_result_set_value = 0


class Mode(_Aggregate):
    """The most frequent value; any of them where several are."""

    function = "mode"
    name = "Mode"
    arity = 1


class _Quantiles(_Aggregate):
    """
    What lies at one share `q` of the ordered values, or at several.

    q: 0 to 1, or a sequence of such; a sequence gives a list in its order.
    """

    arity = 1

    def __init__(self, expression: Any, q: float | Sequence[float], **extra: Any) -> None:
        self.several = not isinstance(q, (int, float))
        shares = [float(each) for each in q] if self.several else [float(q)]  # type: ignore[union-attr, arg-type]
        if not shares or not all(0 <= each <= 1 for each in shares):
            raise ValueError(f"{type(self).__name__} wants q from 0 to 1, and was given {q!r}.")
        written = [f"{each:.17g}" for each in shares]
        self.q_sql = f"[{', '.join(written)}]" if self.several else written[0]
        super().__init__(expression, **extra)

    def _resolve_output_field(self) -> Field[Any, Any]:
        one = self._one_field()
        return ListField(one) if self.several else one

    def _one_field(self) -> Field[Any, Any]:
        return self._source_field()

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> SQL:
        """Write the function with its shares."""
        copy = self._rewritten(f"{self._value_sql()}, {self.q_sql}")
        return super(_Quantiles, copy).as_sql(compiler, connection, **context)

    def _value_sql(self) -> str:
        return "%(expressions)s"


class Quantile(_Quantiles):
    """
    The exact quantile, e.g. Quantile("total", [0.5, 0.95]).

    Between two values it interpolates, in double precision as Avg computes:
    integers give floats, dates datetimes. With discrete=True it is one of the
    values, exactly, and they may be of any type that can be ordered.
    """

    function = "quantile_cont"
    name = "Quantile"

    def __init__(
        self, expression: Any, q: float | Sequence[float], *, discrete: bool = False, **extra: Any
    ) -> None:
        self.discrete = discrete
        super().__init__(expression, q, **extra)
        if discrete:
            self.function = "quantile_disc"

    def _one_field(self) -> Field[Any, Any]:
        return self._source_field() if self.discrete else _interpolated(self._source_field(), self)

    def _value_sql(self) -> str:
        return super()._value_sql() if self.discrete else _interpolable(self._source_field())


class ApproxQuantile(_Quantiles):
    """About the quantile, in little memory (t-digest); it has the values' own type."""

    function = "approx_quantile"
    name = "ApproxQuantile"


class Median(_Aggregate):
    """The value in the middle, Quantile(expression, 0.5)."""

    function = "median"
    name = "Median"
    arity = 1

    def _resolve_output_field(self) -> Field[Any, Any]:
        return _interpolated(self._source_field(), self)

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> SQL:
        """Write median()."""
        copy = self._rewritten(_interpolable(self._source_field()))
        return super(Median, copy).as_sql(compiler, connection, **context)


def _interpolated(field: Field[Any, Any], aggregate: Aggregate) -> Field[Any, Any]:
    """Return the type of what lies between two values. Raises TypeError where nothing can."""
    if isinstance(field, IntegerField):
        return FloatField()
    if isinstance(field, DateField):
        return DateTimeField()
    if isinstance(field, DecimalField):
        return DecimalField()
    if isinstance(field, (FloatField, DurationField)):
        return field
    raise TypeError(
        f"{type(aggregate).__name__} cannot interpolate between values of a "
        f"{type(field).__name__}. Take one of them: Quantile(…, 0.5, discrete=True)"
    )


def _interpolable(field: Field[Any, Any]) -> str:
    """Return the argument; DuckDB would cut what lies between two decimals to their places."""
    is_decimal = isinstance(field, DecimalField)
    return "CAST(%(expressions)s AS DOUBLE)" if is_decimal else "%(expressions)s"


class _Extreme(_Aggregate):
    """
    The value of the row where `by` is largest (ArgMax) or smallest (ArgMin).

    n: how many such values, best first, as a list. Rows where either is NULL
    do not count; of equal ones any is taken.
    """

    arity = 2

    def __init__(self, expression: Any, by: Any, *, n: int | None = None, **extra: Any) -> None:
        if n is not None and (not isinstance(n, int) or n < 1):
            raise ValueError(f"{type(self).__name__} wants n from 1 on, and was given {n!r}.")
        self.n = n
        super().__init__(expression, by, **extra)

    def _resolve_output_field(self) -> Field[Any, Any]:
        field = self._source_field()
        return field if self.n is None else ListField(field)

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> SQL:
        """Write arg_max() or arg_min()."""
        copy: Any = self if self.n is None else self._rewritten(f"%(expressions)s, {self.n}")
        return super(_Extreme, copy).as_sql(compiler, connection, **context)


class ArgMax(_Extreme):
    """The value where `by` is largest, e.g. ArgMax("customer__name", "total")."""

    function = "arg_max"
    name = "ArgMax"


class ArgMin(_Extreme):
    """The value where `by` is smallest."""

    function = "arg_min"
    name = "ArgMin"


class Histogram(_Aggregate):
    """
    How often each value occurs, as a dict.

    bins: upper bounds in ascending order; the dict then counts what lies above
    the bound before and up to each, and under None what lies above the last.
    """

    function = "histogram"
    name = "Histogram"
    arity = 1

    def __init__(self, expression: Any, bins: Sequence[Any] | None = None, **extra: Any) -> None:
        if bins is not None and (not bins or list(bins) != sorted(set(bins))):
            raise ValueError("Histogram wants bins that ascend, each once.")
        self.bins = None if bins is None else list(bins)
        super().__init__(expression, **extra)

    def _resolve_output_field(self) -> Field[Any, Any]:
        return _Counts(self._source_field(), self.bins)

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> SQL:
        """Write histogram(), its bins as literals: DuckDB wants them constant."""
        refuse_elsewhere(type(self).__name__, connection)
        if self.bins is None:
            return super().as_sql(compiler, connection, **context)
        field = self._source_field()
        bins = sql_literal([field.get_db_prep_value(each, connection) for each in self.bins])
        # The template is filled in by %: a percent sign is doubled once more.
        copy = self._rewritten("%(expressions)s, {}".format(bins.replace("%", "%%")))
        return super(Histogram, copy).as_sql(compiler, connection, **context)


class _Counts(MapField):
    """What Histogram returns."""

    def __init__(self, key_field: Field[Any, Any], bins: Sequence[Any] | None = None) -> None:
        self.bins = None if bins is None else frozenset(bins)
        super().__init__(key_field, BigIntegerField())

    def get_db_converters(self, connection: Any) -> list[Any]:
        converters = super().get_db_converters(connection)
        return converters if self.bins is None else [*converters, self._rename_rest]

    def _rename_rest(self, value: Any, expression: Any, connection: Any) -> Any:
        """DuckDB counts what lies above the last bound under the largest value of the type."""
        bins = self.bins or frozenset()
        return value and {key if key in bins else None: count for key, count in value.items()}


class ListAgg(_Aggregate):
    """
    All values as a list, NULL included; `order_by` as in QuerySet.order_by().

    With distinct=True only the values themselves can be ordered by.
    """

    function = "list"
    name = "ListAgg"
    allow_distinct = True
    arg_joiner = " "

    def __init__(self, expression: Any, *, order_by: Any = (), **extra: Any) -> None:
        if isinstance(order_by, str) or hasattr(order_by, "resolve_expression"):
            order_by = (order_by,)
        # The order is an argument like the value: `list(value ORDER BY …)`.
        order = [OrderByList(*order_by)] if order_by else []
        super().__init__(expression, *order, **extra)

    def _resolve_output_field(self) -> Field[Any, Any]:
        return ListField(self._source_field())
