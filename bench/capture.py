"""
What capture costs a writer: saves, bulk_create, update and delete, with and without Levada.

Without means a project that does not have Levada among its apps. Each kind
runs in processes of its own, in turns, so that a slow minute of the machine
meets both. Of a process's repetitions the fastest counts, of the processes
the median. The ratio is of CPU time, the server's included.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from .clock import ServerClock, Span, timed
from .project import load, open_project, scratch_database, scratch_folder
from .report import Report, Table, arguments, median, vendor

REPEATS, ROUNDS = 3, 3
SAVES, SINGLE_SAVES, BULK = 2_000, 500, 10_000
IN_MEMORY = "save, temp_store=MEMORY"
LIMITS = {"save": 1.15, IN_MEMORY: 1.15, "save, each committed": 1.15, "bulk_create": 1.2}

Figures = dict[str, dict[str, float]]


def operations(rows: int) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Return what is measured: its name, the rows it writes, and how."""
    from django.db import connection, transaction
    from django.db.models import F

    from .models import Sale

    def sale(n: int) -> Sale:
        return Sale(
            customer_id=n % 1000 + 1,
            product_id=n % 100 + 1,
            sold_at="2026-01-01 12:00:00+00:00",
            day="2026-01-01",
            country="PT",
            channel="web",
            quantity=n % 9 + 1,
            amount=Decimal(n % 50_000) / 100,
            note=f"note {n}",
        )

    def saves(count: int) -> None:
        for n in range(count):
            sale(n).save(force_insert=True)

    def saves_in_memory() -> None:
        with temporary_storage_in_memory():
            transaction.atomic(lambda: saves(SAVES))()

    def delete() -> None:
        Sale.objects.all().delete()

    found: dict[str, tuple[int, Callable[[], Any]]] = {
        "save": (SAVES, transaction.atomic(lambda: saves(SAVES))),
        "save, each committed": (SINGLE_SAVES, lambda: saves(SINGLE_SAVES)),
        "bulk_create": (BULK, lambda: Sale.objects.bulk_create(map(sale, range(BULK)))),
        "update": (rows, lambda: Sale.objects.update(quantity=F("quantity") + 1)),
        "delete": (rows, delete),
    }
    if connection.vendor == "sqlite":
        found[IN_MEMORY] = (SAVES, saves_in_memory)
    return found


@contextmanager
def temporary_storage_in_memory() -> Iterator[None]:
    """Let SQLite keep in memory what it needs to undo a statement that runs triggers."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("PRAGMA temp_store = MEMORY")
        yield
        cursor.execute("PRAGMA temp_store = DEFAULT")


def measure(url: str, folder: Path, rows: int, captured: bool) -> Figures:
    """Run every operation in this process; returns seconds a row, by operation and clock."""
    open_project(url, folder, captured=captured)
    from django.db import connection

    figures: Figures = {}
    server = ServerClock.of(connection)
    for name, (count, operation) in operations(rows).items():
        spans: list[Span] = []
        for _ in range(REPEATS):
            reset(rows if name in ("update", "delete") else 0)
            with timed(server) as span:
                operation()
            spans.append(span)
        figures[name] = {
            "wall_s": min(span.wall_s for span in spans) / count,
            "cpu_s": min(span.cpu_s for span in spans) / count,
        }
    return figures


def reset(sales: int) -> None:
    """Bring the tables back to `sales` sales and an empty outbox, as the relay would leave it."""
    from django.db import connection

    tables = connection.introspection.table_names()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM bench_sale")
    load(sales, alone=True)
    with connection.cursor() as cursor:
        if "levada_outbox" in tables:
            cursor.execute("DELETE FROM levada_outbox")
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE bench_sale")
            if "levada_outbox" in tables:
                cursor.execute("VACUUM levada_outbox")


def in_a_process(options: Any, captured: bool) -> Figures:
    """Run `measure` in a process of its own."""
    kind = "captured" if captured else "plain"
    command = [sys.executable, "-m", "bench.capture", "--kind", kind, f"--rows={options.rows}"]
    done = subprocess.run(
        [*command, f"--source={options.source}"], stdout=subprocess.PIPE, text=True, check=True
    )
    figures: Figures = json.loads(done.stdout)
    return figures


def combine(rounds: list[Figures]) -> Figures:
    """Return the median of the rounds, by operation and clock."""
    return {
        name: {clock: median([each[name][clock] for each in rounds]) for clock in rounds[0][name]}
        for name in rounds[0]
    }


def report(source: str, plain: Figures, captured: Figures) -> Report:
    """Say what was found, and compare it with the aims."""
    found = Report("capture", source, {"plain": plain, "captured": captured})
    table = Table(
        "Microseconds a row",
        ("operation", "CPU without", "CPU with", "ratio", "wall without", "wall with", "ratio"),
    )
    for name, without in plain.items():
        with_ = captured[name]
        cells = [name]
        for clock in ("cpu_s", "wall_s"):
            ratio = with_[clock] / without[clock]
            cells += [f"{without[clock] * 1e6:.1f}", f"{with_[clock] * 1e6:.1f}", f"{ratio:.2f}×"]
        table.rows.append(cells)
        if (limit := LIMITS.get(name)) is not None:
            ratio = with_["cpu_s"] / without["cpu_s"]
            found.aim(f"{name}, CPU", f"≤ {limit}×", f"{ratio:.2f}×", ratio <= limit)
    found.tables.append(table)
    update, bulk = captured["update"]["cpu_s"] * 1e6, plain["bulk_create"]["cpu_s"] * 1e6
    found.aim(
        "a captured update costs no more than bulk_create, CPU a row",
        f"≤ {bulk:.1f} µs",
        f"{update:.1f} µs",
        update <= bulk,
    )
    return found


def main() -> None:
    parser = arguments(__doc__.strip().splitlines()[0], rows=100_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="processes of each kind")
    parser.add_argument("--kind", choices=["plain", "captured"], help="measure in this process")
    options = parser.parse_args()
    if options.kind:
        with scratch_folder() as folder, scratch_database(options.source) as url:
            figures = measure(url, folder, options.rows, options.kind == "captured")
            close()
        print(json.dumps(figures))
        return
    rounds = [
        (in_a_process(options, captured=False), in_a_process(options, captured=True))
        for _ in range(options.rounds)
    ]
    plain, captured = (combine(list(kind)) for kind in zip(*rounds, strict=True))
    report(vendor(options.source), plain, captured).write(options.out)


def close() -> None:
    """Close Django's connections, so that the database can be dropped."""
    from django.db import connections

    connections.close_all()


if __name__ == "__main__":
    main()
