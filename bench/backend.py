"""
What the DuckDB backend costs beside bare duckdb, and beside Django's backend of the source.

Aggregates through the ORM against their SQL in the bare package; instances
read from DuckDB against the source; `bulk_load` and `bulk_create` against one
bare INSERT of the same rows as Arrow. All take turns on one opened database,
and of the turns the fastest counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import duckdb

from .project import DRAW, open_project, scratch_database, scratch_folder
from .queries import ORM_COST, Timing, fill, measure, querysets
from .report import Report, Table, arguments, median, vendor

INSTANCES = 10_000
LOADED = 1_000_000
CREATED = 100_000
REPEATS = 7

EVENT_SQL = """
    SELECT 1 + draw(i * 3, 50_000) AS customer, 1 + draw(i * 5, 2_000) AS product,
        moment AT TIME ZONE 'UTC' AS sold_at, moment::DATE AS day,
        ['PT', 'ES', 'FR', 'DE', 'IT', 'NL', 'US', 'BR'][1 + draw(i * 19, 8)] AS country,
        ['web', 'shop', 'phone', 'partner'][1 + draw(i * 23, 4)] AS channel,
        (1 + draw(i * 29, 9))::INTEGER AS quantity,
        ((100 + draw(i * 31, 49900)) / 100)::DECIMAL(10, 2) AS amount,
        'note ' || (draw(i * 37, 100000)) AS note
    FROM (
        SELECT i, TIMESTAMP '2021-01-01' + to_seconds(draw(i * 41, 157680000)) AS moment
        FROM range(?) AS t(i)
    )
"""
"""Seeded rows of `Event`, without keys."""


def events(rows: int) -> Any:
    """Return seeded events as an Arrow table."""
    with duckdb.connect() as generator:
        generator.execute("SET TimeZone = 'UTC'")
        generator.execute(DRAW)
        return generator.sql(EVENT_SQL, params=[rows]).to_arrow_table()


def in_turns(
    runs: dict[str, Callable[[], Any]], repeats: int, between: Callable[[], Any] = lambda: None
) -> dict[str, float]:
    """Return the shortest of `repeats` runs of each, in seconds; `between` is not timed."""
    best = dict.fromkeys(runs, math.inf)
    for _ in range(repeats):
        for name, run in runs.items():
            between()
            began = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def read_instances(rows: int, repeats: int) -> dict[str, float]:
    """Time `rows` instances of ten columns from the source and from DuckDB."""
    from django.db import connections

    from levada.stores.duckdb.loading import bulk_load

    from .models import Event

    table = events(rows)
    bulk_load(Event, table, using="analytics")
    Event.objects.using("default").bulk_create(
        [Event(**row) for row in table.to_pylist()], batch_size=1_000
    )
    connections["default"].ensure_connection()

    def read(alias: str) -> Callable[[], Any]:
        return lambda: list(Event.objects.using(alias).all())

    found = in_turns({"source": read("default"), "duckdb": read("analytics")}, repeats * 3)
    _empty()
    return found


def write_rows(rows: int, repeats: int) -> dict[str, float]:
    """Time inserts of `rows` events as Arrow: the bare package's, and bulk_load's."""
    from django.db import connections

    from levada.stores.duckdb.loading import bulk_load

    from .models import Event

    table = events(rows)
    names = ", ".join(table.column_names)
    with connections["analytics"].connection.session.raw.cursor() as bare:

        def insert() -> None:
            bare.register("incoming", table)
            bare.execute(f"INSERT INTO bench_event ({names}) SELECT * FROM incoming")
            bare.unregister("incoming")

        load = lambda: bulk_load(Event, table, using="analytics")  # noqa: E731
        return in_turns({"bare": insert, "bulk_load": load}, repeats, _empty)


def create_instances(count: int, repeats: int) -> dict[str, float]:
    """Time bulk_create of `count` instances that are there already."""
    from django.db import connections

    from .models import Event

    table = events(count)
    rows = table.to_pylist()
    names = ", ".join(table.column_names)
    made: list[Any] = []

    def prepare() -> None:
        _empty()
        made[:] = [Event(**row) for row in rows]

    with connections["analytics"].connection.session.raw.cursor() as bare:

        def insert() -> None:
            bare.register("incoming", table)
            bare.execute(f"INSERT INTO bench_event ({names}) SELECT * FROM incoming")
            bare.unregister("incoming")

        create = lambda: Event.objects.using("analytics").bulk_create(made)  # noqa: E731
        return in_turns({"bare": insert, "bulk_create": create}, repeats, prepare)


def _empty() -> None:
    """Make the table anew: DuckDB keeps deleted rows until a checkpoint."""
    from django.db import connections

    from .models import Event

    connection = connections["analytics"]
    with connection.schema_editor() as editor:
        editor.delete_model(Event)
        editor.create_model(Event)


def report(
    source: str, rows: int, found: dict[str, Timing], times: dict[str, dict[str, float]]
) -> Report:
    """Say what was found, and compare it with the aims."""
    result = Report("backend", source)
    queries = {name: vars(timing) for name, timing in found.items()}
    result.figures = {"rows": rows, "queries": queries, **times}
    aggregates = Table(
        f"Dashboards through the ORM: milliseconds over {rows:_} sales",
        ("queryset", "rows", "ORM", "bare duckdb", "more"),
    )
    aggregates.rows += [
        (
            name,
            f"{timing.rows:_}",
            f"{timing.replica_s * 1e3:.1f}",
            f"{timing.bare_s * 1e3:.1f}",
            f"{timing.orm_share:+.1%}",
        )
        for name, timing in found.items()
    ]
    instances, written, created = times["instances"], times["written"], times["created"]
    read, loaded, made = (min(each, rows) for each in (INSTANCES, LOADED, CREATED))
    others = Table("Rows: milliseconds", ("what", "rows", "measured", "beside", "ratio"))
    others.rows += [
        _row(f"instances, beside {source}", read, instances["duckdb"], instances["source"]),
        _row("bulk_load, beside bare Arrow", loaded, written["bulk_load"], written["bare"]),
        _row("bulk_create, beside bare Arrow", made, created["bulk_create"], created["bare"]),
        _row(
            f"bulk_create, beside bulk_load of {loaded:_}",
            made,
            created["bulk_create"],
            written["bulk_load"],
        ),
    ]
    result.tables += [aggregates, others]
    cost = median([timing.orm_share for timing in found.values()])
    result.aim("ORM over bare duckdb, median", f"≤ {ORM_COST:.0%}", f"{cost:.1%}", cost <= ORM_COST)
    _aim(result, f"instances over {source}", 1.0, instances["duckdb"] / instances["source"])
    _aim(result, "bulk_load over bare Arrow", 1.2, written["bulk_load"] / written["bare"])
    _aim(
        result,
        f"bulk_create of {made:_} over bulk_load of {loaded:_}",
        3.0,
        created["bulk_create"] / written["bulk_load"],
    )
    return result


def _row(what: str, rows: int, measured_s: float, beside_s: float) -> Sequence[str]:
    ratio = f"{measured_s / beside_s:.2f}×"
    return what, f"{rows:_}", f"{measured_s * 1e3:.1f}", f"{beside_s * 1e3:.1f}", ratio


def _aim(result: Report, what: str, limit: float, ratio: float) -> None:
    result.aim(what, f"≤ {limit:g}×", f"{ratio:.2f}×", ratio <= limit)


def main() -> None:
    parser = arguments(__doc__.strip().splitlines()[0], rows=5_000_000)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    with scratch_folder() as folder, scratch_database(options.source) as url:
        open_project(url, folder)
        from django.core.management import call_command

        fill(options.rows)
        call_command("migrate", database="analytics", run_syncdb=True, verbosity=0)
        found = measure([query for query in querysets(options.rows) if query.dashboard], 1)
        times = {
            "instances": read_instances(min(INSTANCES, options.rows), options.repeats),
            "written": write_rows(min(LOADED, options.rows), options.repeats),
            "created": create_instances(min(CREATED, options.rows), options.repeats),
        }
        report(vendor(options.source), options.rows, found, times).write(options.out)
        from .queries import close

        close()


if __name__ == "__main__":
    main()
