"""`QuerySet.sample()`: some rows of a queryset, by DuckDB's USING SAMPLE."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.db.models.sql import Query

from .expressions import SQL, refuse_elsewhere


def sample(
    queryset: QuerySet[Any, Any],
    *,
    percent: float | None = None,
    rows: int | None = None,
    seed: int | None = None,
) -> QuerySet[Any, Any]:
    """
    Return a queryset of about `percent` of the rows, or of `rows` of them.

    What was filtered before is sampled; what is filtered, annotated or
    ordered afterwards works on the sample. With a `seed` the same rows come
    again while the table stays as it is, otherwise each query draws anew.
    """
    if (percent is None) == (rows is None):
        raise TypeError("sample() wants either percent or rows.")
    if percent is not None and not 0 < percent <= 100:
        raise ValueError(f"sample() wants percent above 0 and up to 100, and was given {percent}.")
    if rows is not None and rows < 1:
        raise ValueError(f"sample() wants rows from 1 on, and was given {rows}.")
    if queryset._fields is not None or queryset.query.combinator:
        raise TypeError("sample() takes rows of a model: call it before values() and union().")
    how = f"reservoir({rows:d} ROWS)" if rows else f"bernoulli({percent:f} PERCENT)"
    if seed is not None:
        how += f" REPEATABLE ({int(seed)})"
    keys: Any = queryset.values("pk").query.chain(klass=_Sample)
    keys.how = how
    if queryset.query.is_sliced:  # a slice cannot be filtered, and is in the sample already
        queryset = queryset.all()
        queryset.query.clear_limits()
    return queryset.filter(pk__in=keys)


class _Sample(Query):
    """The keys of the rows that are drawn."""

    how = ""

    def as_sql(self, compiler: Any, connection: Any) -> SQL:
        """Write the query with its sample clause."""
        refuse_elsewhere("sample()", connection)
        sql, params = super().as_sql(compiler, connection)
        inner = sql if self.subquery else f"({sql})"
        sampled = f"SELECT * FROM {inner} AS levada_rows USING SAMPLE {self.how}"
        return (f"({sampled})" if self.subquery else sampled), params
