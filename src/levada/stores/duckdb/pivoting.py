"""
`QuerySet.pivot()`: values of one column become columns, by DuckDB's PIVOT.

    Order.objects.using("analytics").values("month").pivot("country", total=Sum("total"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.models import QuerySet

from .arrow import _Selection
from .expressions import refuse_elsewhere, sql_literal
from .fields import element_converter

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


def pivot(
    queryset: QuerySet[Any, Any], on: str, values: Sequence[Any] | None = None, **aggregates: Any
) -> Pivot:
    """
    Group by `on` and the columns of `values()`, and return a row for each of the latter.

    on: the field or annotation whose values become columns. values: which of
        them, in this order; by default all there are, which asks for them
        first, without NULL.
    aggregates: what stands in each column: of one aggregate under the value
        (`PT`), of several under both (`PT_total`).
    """
    names = queryset._fields  # type: ignore[attr-defined]
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError("pivot() wants to know its rows: call values('month') before it.")
    if not aggregates:
        raise TypeError("pivot() wants aggregates: pivot('country', total=Sum('total')).")
    if queryset.query.is_sliced or queryset.query.combinator:
        raise TypeError("pivot() comes before slices and unions.")
    refuse_elsewhere("pivot()", connections[queryset.db])
    if values is None:
        found = queryset.order_by().values_list(on, flat=True).distinct()
        values = sorted(value for value in found if value is not None)
    # Under names of ours: one called as a field would hide it from the next aggregate.
    cells = {f"levada_cell_{at}": each for at, each in enumerate(aggregates.values())}
    grouped = queryset.order_by().values(*names, on).annotate(**cells)
    return Pivot(grouped, list(names), list(values), list(aggregates))


class Pivot:
    """
    The rows of a pivot; asks the database each time it is read.

    columns: their names, rows' columns first.
    """

    def __init__(
        self,
        grouped: QuerySet[Any, Any],
        names: list[str],
        values: list[Any],
        aggregates: list[str],
    ) -> None:
        self._selection = _Selection.of(grouped, "pivot()")
        self._grouped = grouped
        self._names, self._values, self._aggregates = names, values, aggregates
        several = len(aggregates) > 1
        labels = [
            f"{value}_{aggregate}" if several else str(value)
            for value in values
            for aggregate in aggregates
        ]
        self.columns = [*names, *labels]
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"pivot() would make two columns of one name: {self.columns}.")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self._values:
            return
        pivoted = self._pivoted()
        converters = [_converter(field, pivoted.connection) for field in pivoted.fields]
        with pivoted.connection.cursor() as cursor:
            cursor.execute(pivoted.sql, pivoted.params)
            rows = cursor.fetchall()
        for row in rows:
            cells = (convert(cell) for convert, cell in zip(converters, row, strict=True))
            yield dict(zip(self.columns, cells, strict=True))

    def to_arrow(self) -> pyarrow.Table:
        """Return the rows as an Arrow table."""
        from .arrow import _TableCursor

        pivoted = self._pivoted()
        return pivoted.typed_table(pivoted.run(_TableCursor))

    def to_polars(self) -> polars.DataFrame:
        """Return the rows as a Polars frame."""
        import polars

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a pandas frame of Arrow's types."""
        import pandas

        return self.to_arrow().to_pandas(types_mapper=pandas.ArrowDtype)

    def _pivoted(self) -> _Selection:
        """Return the pivot of the grouped rows: each of its cells is one of them."""
        given = self._selection
        count = len(self._names)
        rows = [f"r{at}" for at in range(count)]
        cells = [f"a{at}" for at in range(len(self._aggregates))]
        annotations = self._grouped.query.annotations
        using = []
        for at, cell in enumerate(cells):
            empty = getattr(annotations[f"levada_cell_{at}"], "empty_result_set_value", None)
            value = f"any_value({cell})"
            value = value if empty is None else f"coalesce({value}, {sql_literal(empty)})"
            using.append(f"{value} AS {cell}")
        ops = given.connection.ops
        told = ", ".join(sql_literal(_prepared(value, ops)) for value in self._values)
        source = f"SELECT * FROM ({given.sql}) AS grouped({', '.join([*rows, 'pivoted', *cells])})"
        sql = (
            f"PIVOT ({source}) ON pivoted IN ({told}) USING {', '.join(using)} "
            f"GROUP BY {', '.join(rows)} ORDER BY {', '.join(rows)}"
        )
        fields = [*given.fields[:count], *given.fields[count + 1 :] * len(self._values)]
        return _Selection(given.connection, sql, given.params, self.columns, fields)


def _prepared(value: Any, ops: Any) -> Any:
    return ops.adapt_datetimefield_value(value) if hasattr(value, "tzinfo") else value


def _converter(field: Any, connection: Any) -> Callable[[Any], Any]:
    convert = None if field is None else element_converter(field, connection)
    return convert or (lambda value: value)
