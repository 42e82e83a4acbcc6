"""
The benchmarks' Django project: a source of its own, a replica, and seeded rows.

`open_project()` configures Django, so one process has one project.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import django
import duckdb
from django.conf import settings

CUSTOMERS, PRODUCTS = 50_000, 2_000
LOAD_ROWS = 50_000

DRAW = "CREATE MACRO draw(seed, below) AS (hash(seed) % below)::BIGINT"
CUSTOMER_SQL = f"""
    SELECT i + 1, 'Customer ' || (i + 1),
        ['PT', 'ES', 'FR', 'DE', 'IT', 'NL', 'US', 'BR'][1 + draw(i * 7, 8)],
        ['private', 'trade', 'public'][1 + draw(i * 11, 3)]
    FROM range({CUSTOMERS}) AS t(i) ORDER BY i
"""
PRODUCT_SQL = f"""
    SELECT i + 1, 'Product ' || (i + 1),
        ['tea', 'coffee', 'wine', 'honey', 'salt', 'oil', 'flour', 'spice', 'fruit', 'cheese']
            [1 + draw(i * 13, 10)]
    FROM range({PRODUCTS}) AS t(i) ORDER BY i
"""
SALE_SQL = f"""
    SELECT i + 1,
        1 + draw(i * 3, {CUSTOMERS}),
        1 + draw(i * 5, {PRODUCTS}) * draw(i * 17, 100) // 100,
        strftime(moment, '%Y-%m-%d %H:%M:%S'), strftime(moment, '%Y-%m-%d'),
        ['PT', 'ES', 'FR', 'DE', 'IT', 'NL', 'US', 'BR'][1 + draw(i * 19, 8)],
        ['web', 'shop', 'phone', 'partner'][1 + draw(i * 23, 4)],
        1 + draw(i * 29, 9),
        (((100 + draw(i * 31, 49900)) / 100)::DECIMAL(10, 2))::VARCHAR,
        'note ' || (draw(i * 37, 100000))
    FROM (
        SELECT i, TIMESTAMP '2021-01-01' + to_seconds(draw(i * 41, 157680000)) AS moment
        FROM range(?) AS t(i)
    ) ORDER BY i
"""
"""Seeded rows: the same for the same number of them, in any source."""


def source_database(url: str, folder: Path) -> dict[str, Any]:
    """Return Django's settings of the source at `url`; a SQLite file in `folder` without one."""
    if not url:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": folder / "source.sqlite3",
            "OPTIONS": {
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                "transaction_mode": "IMMEDIATE",
                "timeout": 60,
            },
        }
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname,
        "PORT": parts.port or 5432,
    }


@contextlib.contextmanager
def scratch_database(url: str) -> Iterator[str]:
    """Make a database beside the one `url` names and drop it afterwards; '' stays ''."""
    if not url:
        yield ""
        return
    import psycopg

    name = f"levada_bench_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield urlsplit(url)._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for the files of a run and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="levada-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_project(url: str, folder: Path, *, captured: bool = True) -> None:
    """
    Configure Django with the source at `url` and make its tables.

    captured: with Levada installed and its triggers; otherwise the project
    knows nothing of Levada.
    """
    levada = {
        "INSTALLED_APPS": ["levada", "bench"],
        "LEVADA": {
            "REPLICATE": {"analytics": ["bench.Customer", "bench.Product", "bench.Sale"]},
            "LOG": {"NAME": folder / "levada-log.sqlite3"},
        },
    }
    replica = {"ENGINE": "levada.stores.duckdb", "NAME": folder / "analytics.duckdb"}
    source = source_database(url, folder)
    settings.configure(
        USE_TZ=True,
        TIME_ZONE="UTC",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={"default": source, **({"analytics": replica} if captured else {})},
        **(levada if captured else {"INSTALLED_APPS": ["bench"]}),
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)


def uncaptured() -> contextlib.AbstractContextManager[Any]:
    """Load rows without the triggers: as a project does that has them before it has Levada."""
    from levada import capture

    @contextlib.contextmanager
    def without() -> Iterator[None]:
        capture.uninstall("default")
        try:
            yield
        finally:
            capture.install("default")

    return without()


def load(sales: int, *, alone: bool = False) -> None:
    """Fill the tables with `sales` seeded sales and, unless `alone`, customers and products."""
    from .models import Customer, Product, Sale

    with duckdb.connect() as generator:
        generator.execute(DRAW)
        _insert(Sale, generator.execute(SALE_SQL, [sales]))
        if not alone:
            _insert(Customer, generator.execute(CUSTOMER_SQL))
            _insert(Product, generator.execute(PRODUCT_SQL))


def _insert(model: Any, rows: duckdb.DuckDBPyConnection) -> None:
    from django.db import connection, transaction

    table = model._meta.db_table
    columns = [field.column for field in model._meta.concrete_fields]
    with transaction.atomic(), connection.cursor() as cursor:
        while chunk := rows.fetchmany(LOAD_ROWS):
            if connection.vendor == "postgresql":
                _copy(cursor, table, columns, chunk)
            else:
                marks = ", ".join("?" * len(columns))
                sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
                connection.connection.executemany(sql, chunk)
        if connection.vendor == "postgresql":
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence(%s, 'id'), (SELECT max(id) FROM {table}))",
                [table],
            )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _copy(cursor: Any, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
