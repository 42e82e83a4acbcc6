"""
Ten dashboard querysets on the source and on the replica, and three that suit the source.

The same ORM code runs with `.using("default")` and `.using("analytics")`;
the source has the indexes a shop would have and fresh statistics. The
answers are compared. In turns with the ORM, the SQL of each runs in the bare
duckdb package on a connection to the same opened database: what is left over
is the ORM's own cost. Of a query's repetitions the fastest counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .project import CUSTOMERS, load, open_project, scratch_database, scratch_folder, uncaptured
from .report import Report, Table, arguments, median, vendor

SOURCE_REPEATS, REPLICA_REPEATS = 3, 9
QUICK_S = 0.1
"""A query on the source below this repeats as often as those on the replica."""

FASTER = {"SQLite": 30, "PostgreSQL": 12}
ORM_COST = 0.05


@dataclass(frozen=True)
class Query:
    """
    One queryset.

    make: from an alias to the queryset on it. dashboard: counts for the aims;
        the others are the source's home ground.
    """

    name: str
    make: Callable[[str], Any]
    dashboard: bool = True


def querysets(rows: int) -> list[Query]:
    """Return the querysets; some name a row, so they depend on how many there are."""
    from django.db.models import Avg, Count, F, Max, Q, Sum, Window
    from django.db.models.functions import Rank, TruncMonth

    from .models import Customer, Sale

    def sales(using: str) -> Any:
        return Sale.objects.using(using)

    def ranked(using: str) -> Any:
        place = Window(Rank(), partition_by=F("country"), order_by=F("total").desc())
        totals = sales(using).values("country", "product__category").annotate(total=Sum("amount"))
        return totals.annotate(place=place).order_by("country", "place")

    def running(using: str) -> Any:
        so_far = Window(Sum("amount"), partition_by=F("customer"), order_by=("sold_at", "pk"))
        totals = sales(using).annotate(so_far=so_far).values("pk", "customer", "so_far")
        return totals.order_by("-so_far", "pk")[:20]

    return [
        Query(
            "revenue by country and channel",
            lambda using: (
                sales(using)
                .values("country", "channel")
                .annotate(total=Sum("amount"), orders=Count("pk"))
                .order_by("country", "channel")
            ),
        ),
        Query(
            "sales by day of a year",
            lambda using: (
                sales(using)
                .filter(sold_at__gte="2024-01-01T00:00Z", sold_at__lt="2025-01-01T00:00Z")
                .values("day")
                .annotate(total=Sum("amount"))
                .order_by("day")
            ),
        ),
        Query(
            "revenue by month",
            lambda using: (
                sales(using)
                .annotate(month=TruncMonth("day"))
                .values("month")
                .annotate(total=Sum("amount"), mean=Avg("quantity"))
                .order_by("month")
            ),
        ),
        Query(
            "distinct customers by channel",
            lambda using: (
                sales(using)
                .values("channel")
                .annotate(customers=Count("customer", distinct=True))
                .order_by("channel")
            ),
        ),
        Query(
            "ten best customers",
            lambda using: (
                sales(using)
                .values("customer", "customer__name")
                .annotate(total=Sum("amount"))
                .order_by("-total", "customer")[:10]
            ),
        ),
        Query(
            "revenue by segment and category",
            lambda using: (
                sales(using)
                .values("customer__segment", "product__category")
                .annotate(total=Sum("amount"))
                .order_by("customer__segment", "product__category")
            ),
        ),
        Query("running total of each customer", running),
        Query("categories ranked within a country", ranked),
        Query(
            "shares by filtered aggregates",
            lambda using: (
                sales(using)
                .values("country")
                .annotate(
                    web=Count("pk", filter=Q(channel="web")),
                    large=Count("pk", filter=Q(amount__gt=400)),
                    dearest=Max("amount"),
                )
                .order_by("country")
            ),
        ),
        Query(
            "notes that contain a word",
            lambda using: (
                sales(using)
                .filter(note__contains="9977")
                .values("channel")
                .annotate(n=Count("pk"))
                .order_by("channel")
            ),
        ),
        Query(
            "one sale by its key",
            lambda using: sales(using).filter(pk=rows // 2).values_list("amount", "day"),
            dashboard=False,
        ),
        Query(
            "the sales of one customer",
            lambda using: (
                sales(using)
                .filter(customer=CUSTOMERS // 2)
                .order_by("pk")
                .values_list("pk", "amount")
            ),
            dashboard=False,
        ),
        Query(
            "the latest fifty sales",
            lambda using: sales(using).order_by("-sold_at", "-pk").values_list("pk", "amount")[:50],
            dashboard=False,
        ),
        Query(
            "one customer by key",
            lambda using: (
                Customer.objects.using(using).filter(pk=CUSTOMERS // 2).values_list("name")
            ),
            dashboard=False,
        ),
    ]


@dataclass
class Timing:
    """Seconds of one query on the source, on the replica, and in bare duckdb."""

    source_s: float
    replica_s: float
    bare_s: float
    rows: int
    equal: bool

    @property
    def faster(self) -> float:
        """How many times faster the replica is."""
        return self.source_s / self.replica_s

    @property
    def orm_share(self) -> float:
        """What the ORM adds to the bare query, as a share of it."""
        return self.replica_s / self.bare_s - 1


def fastest(run: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the shortest of `repeats` runs and the last answer."""
    best, answer = math.inf, None
    for _ in range(repeats):
        began = time.perf_counter()
        answer = run()
        best = min(best, time.perf_counter() - began)
    return best, answer


def equal(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Compare answers; numbers may differ in the 12th digit, where SQLite sums as floats."""
    return len(one) == len(other) and all(
        _same(a, b) for left, right in zip(one, other, strict=True) for a, b in _pairs(left, right)
    )


def _pairs(left: Any, right: Any) -> list[tuple[Any, Any]]:
    if isinstance(left, dict):
        return [(left[key], right[key]) for key in left]
    return list(zip(left, right, strict=True))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (float, Decimal)) and isinstance(b, (float, Decimal)):
        return math.isclose(a, b, rel_tol=1e-12)
    return bool(a == b)


def as_duckdb(queryset: Any) -> tuple[str, Any]:
    """Return the queryset's SQL and parameters as the duckdb package takes them."""
    import datetime

    from levada.stores.duckdb.parameters import to_duckdb

    sql, params = queryset.query.get_compiler("analytics").as_sql()
    return to_duckdb(sql, params, datetime.UTC)


def measure(queries: Sequence[Query], repeats: int) -> dict[str, Timing]:
    """Time every query on the source, on the replica, and in bare duckdb on the replica."""
    from django.db import connections

    connections["analytics"].ensure_connection()
    timings = {}
    with connections["analytics"].connection.session.raw.cursor() as bare:
        for query in queries:
            source_s, expected = fastest(lambda q=query: list(q.make("default")), repeats)
            if source_s < QUICK_S:  # the first run of a quick one mostly warms caches
                source_s, expected = fastest(
                    lambda q=query: list(q.make("default")), REPLICA_REPEATS
                )
            sql, params = as_duckdb(query.make("analytics"))
            replica_s, bare_s, answer = math.inf, math.inf, []
            for _ in range(REPLICA_REPEATS):
                elapsed, answer = fastest(lambda q=query: list(q.make("analytics")), 1)
                replica_s = min(replica_s, elapsed)
                run = lambda: bare.execute(sql, params).fetchall()  # noqa: E731, B023
                bare_s = min(bare_s, fastest(run, 1)[0])
            timings[query.name] = Timing(
                source_s, replica_s, bare_s, len(answer), equal(expected, answer)
            )
    return timings


def fill(rows: int) -> tuple[float, float]:
    """Load the source, build the replica; returns the seconds each took."""
    from levada.apply import rebuild
    from levada.log import open_log
    from levada.outbox.sources import open_source
    from levada.relay import Relay

    began = time.perf_counter()
    with uncaptured():
        load(rows)
    loaded = time.perf_counter()
    relay = Relay(open_source("default"), open_log())
    rebuild("analytics", pump=relay.step)
    return loaded - began, time.perf_counter() - loaded


def report(source: str, rows: int, filled: tuple[float, float], found: dict[str, Timing]) -> Report:
    """Say what was found, and compare it with the aims."""
    queries = {query.name: query for query in querysets(rows)}
    result = Report("queries", source)
    result.figures = {
        "rows": rows,
        "load_s": filled[0],
        "rebuild_s": filled[1],
        "queries": {name: vars(timing) for name, timing in found.items()},
    }
    for heading, dashboard in (("Dashboards", True), ("Where the source is at home", False)):
        table = Table(
            f"{heading}: milliseconds over {rows:_} sales",
            ("queryset", "rows", source, "replica", "faster", "bare duckdb", "ORM", "equal"),
        )
        table.rows += [
            (
                name,
                f"{timing.rows:_}",
                f"{timing.source_s * 1e3:.1f}",
                f"{timing.replica_s * 1e3:.1f}",
                f"{timing.faster:.1f}×" if timing.faster >= 0.1 else f"{timing.faster:.3f}×",
                f"{timing.bare_s * 1e3:.1f}",
                f"{timing.orm_share:+.0%}",
                "yes" if timing.equal else "NO",
            )
            for name, timing in found.items()
            if queries[name].dashboard is dashboard
        ]
        result.tables.append(table)
    timings = [timing for name, timing in found.items() if queries[name].dashboard]
    _aims(result, source, timings, found)
    return result


def _aims(result: Report, source: str, timings: Sequence[Timing], found: dict[str, Timing]) -> None:
    faster = median([timing.faster for timing in timings])
    cost = median([timing.orm_share for timing in timings])
    wrong = [name for name, timing in found.items() if not timing.equal]
    result.aim(
        f"dashboards faster than {source}, median",
        f"≥ {FASTER[source]}×",
        f"{faster:.1f}×",
        faster >= FASTER[source],
    )
    result.aim(
        "ORM over bare duckdb, dashboards, median",
        f"≤ {ORM_COST:.0%}",
        f"{cost:.1%}",
        cost <= ORM_COST,
    )
    result.aim("answers that differ", "0", str(len(wrong)), not wrong)


def main() -> None:
    parser = arguments(__doc__.strip().splitlines()[0], rows=5_000_000)
    parser.add_argument("--repeats", type=int, default=SOURCE_REPEATS, help="on the source")
    options = parser.parse_args()
    with scratch_folder() as folder, scratch_database(options.source) as url:
        open_project(url, folder)
        filled = fill(options.rows)
        found = measure(querysets(options.rows), options.repeats)
        report(vendor(options.source), options.rows, filled, found).write(options.out)
        close()


def close() -> None:
    """Close Django's connections, so that the database can be dropped."""
    from django.db import connections

    connections.close_all()


if __name__ == "__main__":
    main()
