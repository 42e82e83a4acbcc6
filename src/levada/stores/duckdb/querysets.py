"""
Queryset methods that only a DuckDB database has.

Every queryset has them in a project that installs the app `levada`, or
`levada.stores.duckdb` for the backend alone, so that
`Order.objects.using("analytics").to_arrow()` works for any model; a method of
the same name on a queryset class of the project's own is left alone. On
another database they raise NotSupportedError.

    class Order(models.Model):
        objects = DuckDBManager()        # for type checkers, and Order.objects.to_arrow()
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import Manager, QuerySet

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from .pivoting import Pivot

__all__ = ["DuckDBManager", "DuckDBQuerySet"]


class DuckDBMethods:
    """The methods, to be mixed into a subclass of QuerySet."""

    def to_arrow(self) -> pyarrow.Table:
        """Return the rows as an Arrow table; see `levada.stores.duckdb.arrow`."""
        from . import arrow

        return arrow.to_arrow(self)  # type: ignore[arg-type]

    def to_arrow_batches(self, batch_rows: int | None = None) -> pyarrow.RecordBatchReader:
        """Return a reader of the rows, `batch_rows` of them in memory at a time."""
        from . import arrow

        return arrow.to_arrow_batches(self, *([] if batch_rows is None else [batch_rows]))  # type: ignore[arg-type]

    def to_polars(self) -> polars.DataFrame:
        """Return the rows as a Polars frame."""
        from . import arrow

        return arrow.to_polars(self)  # type: ignore[arg-type]

    def to_pandas(self, *, arrow_types: bool = True) -> pandas.DataFrame:
        """Return the rows as a pandas frame, of Arrow's types or of pandas' classic ones."""
        from . import arrow

        return arrow.to_pandas(self, arrow_types=arrow_types)  # type: ignore[arg-type]

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        partition_by: Sequence[str] = (),
        compression: str = "zstd",
        overwrite: bool = False,
    ) -> int:
        """Write the rows to a Parquet file, or to a folder of them; returns how many."""
        from . import arrow

        return arrow.to_parquet(
            self,  # type: ignore[arg-type]
            path,
            partition_by=partition_by,
            compression=compression,
            overwrite=overwrite,
        )

    def sample(
        self, *, percent: float | None = None, rows: int | None = None, seed: int | None = None
    ) -> Any:
        """Return a queryset of some of the rows; see `levada.stores.duckdb.sampling`."""
        from . import sampling

        return sampling.sample(self, percent=percent, rows=rows, seed=seed)  # type: ignore[arg-type]

    def asof_join(
        self,
        other: QuerySet[Any, Any],
        *,
        on: str | tuple[str, str],
        values: Sequence[str] | Mapping[str, str],
        by: Sequence[str] | Mapping[str, str] = (),
        forward: bool = False,
        strict: bool = False,
    ) -> Any:
        """Annotate each row with another's latest one; see `levada.stores.duckdb.asof`."""
        from . import asof

        return asof.asof_join(
            self,  # type: ignore[arg-type]
            other,
            on=on,
            values=values,
            by=by,
            forward=forward,
            strict=strict,
        )

    def pivot(self, on: str, values: Sequence[Any] | None = None, **aggregates: Any) -> Pivot:
        """Turn values of `on` into columns; see `levada.stores.duckdb.pivoting`."""
        from . import pivoting

        return pivoting.pivot(self, on, values, **aggregates)  # type: ignore[arg-type]


class DuckDBQuerySet(DuckDBMethods, QuerySet[Any, Any]):
    """A queryset whose methods for DuckDB are known to type checkers."""


DuckDBManager = Manager.from_queryset(DuckDBQuerySet, "DuckDBManager")
"""A manager that has the methods itself."""


def register() -> None:
    """Give every queryset the methods, once; Django's own and a subclass' stay."""
    for name, method in vars(DuckDBMethods).items():
        if not name.startswith("_") and not hasattr(QuerySet, name):
            setattr(QuerySet, name, method)
