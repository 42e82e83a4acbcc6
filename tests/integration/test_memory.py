"""One transaction of many rows takes no more memory than as many rows in small transactions."""

import pytest

from .projects import Project

ROWS = 150_000
BATCH_ROWS = 2_000
MOST = 1.25
"""How much more one large transaction may take; read at once it took 1.7 times as much."""

WRITE = """
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute(
        'INSERT INTO shop_seat ("row", number, taken) '
        'WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers '
        "WHERE n < {rows}) SELECT 'A', n, false FROM numbers"
    )
"""
PARTS = """
from levada.apply import Applier, rebuild, verify
from levada.log import open_log
from levada.outbox.sources import open_source
from levada.relay import Relay
from levada.stores import open_store
source, log, store = open_source(), open_log(), open_store("analytics")
relay = Relay(source, log)
def apply_all():
    applier = Applier(store, log, source)
    return sum(iter(applier.step, 0))
"""
FILL = """
rebuild("analytics", store=store, log=log, source=source, pump=relay.step)
apply_all()
"""
CHANGE = """
from django.db.models import Q
from tests.shop.models import Seat
for first in range(1, {rows} + 1, {size}):
    Seat.objects.filter(number__gte=first, number__lt=first + {size}).update(taken=~Q(taken=True))
"""
CARRY = """
found = sum(iter(relay.step, 0)), apply_all()
assert found == ({rows}, {rows}), found
"""
PEAK = """
from pathlib import Path
print(*(line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmHWM")))
"""
"""Prints the most memory this process ever had, in KiB; getrusage tells that of its parent, too."""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with ROWS rows in source and store, and small batches."""
    monkeypatch.setenv("LEVADA_TEST_BATCH_ROWS", str(BATCH_ROWS))
    made = Project(tmp_path)
    try:
        made.manage("migrate", "--verbosity", "0")
        made.python(WRITE.format(rows=ROWS) + PARTS + FILL)
        yield made
    finally:
        made.close()


def peak(project, *, rows_each):
    """Change every row, so many in a transaction; return the KiB that carrying them takes."""
    project.python(CHANGE.format(rows=ROWS, size=rows_each))
    return int(project.python(PARTS + CARRY.format(rows=ROWS) + PEAK))


def test_relay_and_applier_carry_a_large_transaction_in_the_memory_of_small_ones(project):
    small = peak(project, rows_each=BATCH_ROWS)
    large = peak(project, rows_each=ROWS)
    assert large < MOST * small, f"{large:,} KiB against {small:,} KiB"
