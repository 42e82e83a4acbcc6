"""
From commit to visible: the rate at full load, and the lag at a steady pace.

Full load: a backlog of captured changes is relayed and applied in this
process, first inserts, then updates of the same rows. Beside it the same rows
go into DuckDB straight from Arrow, which no applier can beat.

Steady pace: a keeper runs in a process of its own, this one commits changes at
the given pace, and a third asks the replica for the newest row, again and
again. A change's lag is the time from the return of its commit to the end of
the first question that saw it; it includes the time a question takes.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from .clock import ServerClock, Span, timed
from .project import open_project, scratch_database, scratch_folder
from .report import Report, Table, arguments, quantile, vendor

PACE, SECONDS, PER_COMMIT, WARM_UP_S = 1_000, 20, 1, 2.0
LIMIT_US, LIMIT_P99_MS, PACE_HELD = 12.0, 100.0, 0.95
ASK_S = 0.002
WRITE_ROWS = 10_000
ENDING = -1
"""A quantity no sale has: the last row, which tells the observer to stop."""


def sale(n: int, quantity: int | None = None) -> Any:
    """Return an unsaved sale."""
    from .models import Sale

    return Sale(
        customer_id=n % 1000 + 1,
        product_id=n % 100 + 1,
        sold_at=datetime(2026, 1, 1, 12, tzinfo=UTC),
        day="2026-01-01",
        country="PT",
        channel="web",
        quantity=n % 9 + 1 if quantity is None else quantity,
        amount=Decimal(n % 50_000) / 100,
        note=f"note {n}",
    )


def insert(rows: int) -> None:
    """Commit `rows` inserts."""
    from .models import Sale

    for start in range(0, rows, WRITE_ROWS):
        numbers = range(start, min(rows, start + WRITE_ROWS))
        Sale.objects.bulk_create(sale(n) for n in numbers)


def update(rows: int) -> None:
    """Commit an update of each row, ten thousand at a time."""
    from django.db.models import F

    from .models import Sale

    first = Sale.objects.order_by("pk").values_list("pk", flat=True)[0]
    for start in range(first, first + rows, WRITE_ROWS):
        some = Sale.objects.filter(pk__gte=start, pk__lt=start + WRITE_ROWS)
        some.update(quantity=F("quantity") + 1)


def until_idle(step: Callable[[], int], server: ServerClock | None = None) -> tuple[int, Span]:
    """Call `step` until it has nothing to do; returns what it did and the time."""
    done = 0
    with timed(server) as span:
        while count := step():
            done += count
    return done, span


def full_load(rows: int) -> dict[str, dict[str, float]]:
    """Relay and apply a backlog; returns seconds an event, by kind, part and clock."""
    from levada.apply import Applier
    from levada.log import open_log
    from levada.outbox.sources import open_source
    from levada.relay import Relay
    from levada.stores import open_store

    log, source = open_log(), open_source("default")
    relay = Relay(source, log)
    applier = Applier(open_store("analytics"), log, source)
    relay.step()  # connects to the source
    applier.step()  # fills the empty replica, so that what follows is changes
    figures = {}
    for kind, write in (("insert", insert), ("update", update)):
        write(rows)
        relayed, relay_span = until_idle(relay.step, servers())
        applied, apply_span = until_idle(applier.step)
        if not relayed == applied == rows:
            raise SystemExit(f"{rows} changes, {relayed} relayed, {applied} applied")
        figures[kind] = {
            "relay_cpu_s": relay_span.cpu_s / rows,
            "apply_cpu_s": apply_span.cpu_s / rows,
            "relay_wall_s": relay_span.wall_s / rows,
            "apply_wall_s": apply_span.wall_s / rows,
        }
    figures["bare"] = bare(applier.store.connection.fetch_arrow("SELECT * FROM bench_sale"))
    applier.close()
    for each in (source, log):
        each.close()
    return figures


def servers() -> ServerClock:
    """Return the CPU clock of all server processes of the source that answer anybody."""
    from django.db import connection

    if connection.vendor != "postgresql":
        return ServerClock(())
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
        return ServerClock(pid for (pid,) in cursor.fetchall())


def bare(rows: Any) -> dict[str, float]:
    """Insert an Arrow table into an empty DuckDB file: at once, and 10_000 rows a transaction."""
    figures = {}
    with scratch_folder() as folder, duckdb.connect(str(folder / "bare.duckdb")) as connection:
        connection.register("rows", rows)
        connection.execute("CREATE TABLE sale AS SELECT * FROM rows LIMIT 0")
        connection.unregister("rows")
        for name, size in (("at_once", len(rows)), ("batches", WRITE_ROWS)):
            with timed() as span:
                for start in range(0, len(rows), size):
                    connection.register("batch", rows.slice(start, size))
                    connection.execute("INSERT INTO sale SELECT * FROM batch")
                    connection.unregister("batch")
            figures[f"{name}_cpu_s"] = span.cpu_s / len(rows)
            figures[f"{name}_wall_s"] = span.wall_s / len(rows)
    return figures


# The steady pace.


def keep() -> None:
    """Be the keeper's process: keep until SIGTERM."""
    from levada.keeper import Keeper

    Keeper().run()


def observe() -> None:
    """Be the observer's process: print when which row was the newest, until the ending row."""
    from .models import Sale

    newest = Sale.objects.using("analytics").order_by("-pk").values_list("pk", "quantity")[:1]
    print("observing", flush=True)
    seen, asked, samples = 0, 0, []
    while True:
        rows = list(newest.all())
        now = time.monotonic()
        asked += 1
        if rows and rows[0][0] != seen:
            seen = rows[0][0]
            samples.append((now, seen))
            if rows[0][1] == ENDING:
                break
        time.sleep(ASK_S)
    print(json.dumps({"asked": asked, "samples": samples}))


@contextmanager
def another_process(role: str, url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run this module as `role` beside us; ended at the end of the block."""
    command = [sys.executable, "-m", "bench.latency", "--role", role, "--folder", str(folder)]
    with subprocess.Popen(
        [*command, f"--source={url}"], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.terminate()
            child.wait()


def paced(pace: int, seconds: int, per_commit: int) -> list[tuple[float, int, int]]:
    """
    Commit `pace` changes a second; returns when each commit returned and its first and last key.

    A commit that is late is not made up for in a burst: the clock starts again.
    """
    from .models import Sale

    commits = []
    interval = per_commit / pace
    due = time.monotonic()
    for number in range(pace * seconds // per_commit):
        if (ahead := due - time.monotonic()) > 0:
            time.sleep(ahead)
        due = max(due + interval, time.monotonic() - interval)
        made = Sale.objects.bulk_create(sale(number + at) for at in range(per_commit))
        commits.append((time.monotonic(), made[0].pk, made[-1].pk))
    return commits


def steady(url: str, folder: Path, pace: int, seconds: int, per_commit: int) -> dict[str, float]:
    """Measure the lag at a steady pace; returns its quantiles in seconds, and the pace held."""
    import levada

    with another_process("keeper", url, folder), another_process("observer", url, folder) as child:
        assert child.stdout is not None
        child.stdout.readline()
        sale(0).save()
        levada.wait_for("analytics", levada.position(), timeout_s=60)
        began = time.monotonic()
        commits = paced(pace, seconds, per_commit)
        took_s = time.monotonic() - began
        sale(0, quantity=ENDING).save()
        observed = json.loads(child.stdout.readline())
    lags = lags_of(commits, observed["samples"], after=began + WARM_UP_S)
    return {
        "changes": len(commits) * per_commit,
        "per_commit": per_commit,
        "pace": pace,
        "pace_held": len(commits) * per_commit / took_s,
        "asked_every_s": took_s / observed["asked"],
        "p50_s": quantile(lags, 0.50),
        "p99_s": quantile(lags, 0.99),
        "max_s": max(lags),
    }


def lags_of(
    commits: Sequence[tuple[float, int, int]],
    samples: Sequence[tuple[float, int]],
    after: float,
) -> list[float]:
    """Return each commit's lag; `samples` and `commits` are in order of time and key."""
    lags, sample = [], iter(samples)
    seen_at, newest = -math.inf, -1
    for committed_at, _, last in commits:
        while newest < last:
            seen_at, newest = next(sample)
        if committed_at >= after:
            lags.append(max(0.0, seen_at - committed_at))
    return lags


# The report.


def report(source: str, rows: int, load: dict[str, Any], lag: dict[str, float]) -> Report:
    """Say what was found, and compare it with the aims."""
    found = Report("latency", source, {"rows": rows, "full_load": load, "steady": lag})
    table = Table(
        f"Full load: microseconds of CPU an event, {rows:_} events a kind",
        ("kind", "relay", "apply", "together", "events/s on one core", "events/s by the wall"),
    )
    for kind in ("insert", "update"):
        each = load[kind]
        cpu = each["relay_cpu_s"] + each["apply_cpu_s"]
        wall = each["relay_wall_s"] + each["apply_wall_s"]
        table.rows.append(
            (
                kind,
                f"{each['relay_cpu_s'] * 1e6:.1f}",
                f"{each['apply_cpu_s'] * 1e6:.1f}",
                f"{cpu * 1e6:.1f}",
                f"{1 / cpu:_.0f}",
                f"{1 / wall:_.0f}",
            )
        )
        reached = f"{cpu * 1e6:.1f} µs"
        found.aim(
            f"relay and apply, {kind}, CPU", f"≤ {LIMIT_US} µs", reached, cpu * 1e6 <= LIMIT_US
        )
    found.tables.append(table)
    bare_table = Table(
        "The limit: the same rows from Arrow into bare DuckDB, CPU",
        ("how", "µs a row", "rows/s on one core", "of it the insert path reaches"),
    )
    insert_cpu = load["insert"]["relay_cpu_s"] + load["insert"]["apply_cpu_s"]
    for name, how in (("at_once", "one transaction"), ("batches", f"{WRITE_ROWS:_} rows each")):
        cpu = load["bare"][f"{name}_cpu_s"]
        bare_table.rows.append(
            (how, f"{cpu * 1e6:.2f}", f"{1 / cpu:_.0f}", f"{cpu / insert_cpu:.1%}")
        )
    found.tables.append(bare_table)
    if lag:
        found.tables.append(_lag_table(lag))
        held = lag["pace_held"] / lag["pace"]
        found.aim("the pace was held", f"≥ {PACE_HELD:.0%}", f"{held:.0%}", held >= PACE_HELD)
        p99_ms = lag["p99_s"] * 1e3
        found.aim(
            "lag, p99", f"≤ {LIMIT_P99_MS:.0f} ms", f"{p99_ms:.0f} ms", p99_ms <= LIMIT_P99_MS
        )
    return found


def _lag_table(lag: dict[str, float]) -> Table:
    table = Table(
        f"Steady pace, {lag['per_commit']:.0f} a commit: milliseconds from commit to visible",
        ("changes", "a second", "p50", "p99", "max", "asked every"),
    )
    shown = [f"{lag[name] * 1e3:.1f}" for name in ("p50_s", "p99_s", "max_s", "asked_every_s")]
    table.rows.append((f"{lag['changes']:_.0f}", f"{lag['pace_held']:.0f}", *shown))
    return table


def main() -> None:
    parser = arguments(__doc__.strip().splitlines()[0], rows=200_000)
    parser.add_argument("--pace", type=int, default=PACE, help="changes a second")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="0 leaves the pace out")
    parser.add_argument("--per-commit", type=int, default=PER_COMMIT)
    parser.add_argument("--role", choices=["keeper", "observer"], help="be one of the processes")
    parser.add_argument("--folder", type=Path, help="the project's, for a role")
    options = parser.parse_args()
    if options.role:
        open_project(options.source, options.folder)
        {"keeper": keep, "observer": observe}[options.role]()
        return
    with scratch_folder() as folder, scratch_database(options.source) as url:
        open_project(url, folder)
        load = full_load(options.rows)
        lag = {}
        if options.seconds:
            release(folder)
            lag = steady(url, folder, options.pace, options.seconds, options.per_commit)
        report(vendor(options.source), options.rows, load, lag).write(options.out)
        close()


def release(folder: Path) -> None:
    """Close the replica's file, so that the keeper is the one that opens it."""
    from django.db import connections

    from levada.stores.duckdb import ownership

    connections["analytics"].close()
    ownership.release(os.fspath(folder / "analytics.duckdb"))


def close() -> None:
    """Close Django's connections, so that the database can be dropped."""
    from django.db import connections

    connections.close_all()


if __name__ == "__main__":
    main()
