"""`iterator()` over many rows takes the memory of a few, whoever else uses the connection."""

import json
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from levada.errors import StoreFull
from levada.stores.duckdb import kept, ownership
from levada.stores.duckdb.kept import FILE_ROWS, MEMORY_ROWS, KeptRows
from tests.integration.duckdb_child import Child

ROWS = 1_000_000


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("iterate") / "numbers.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE numbers AS SELECT range AS n, 'row number ' || range AS text "
            f"FROM range({ROWS})"
        )
    return path


def iterate(path, way):
    """Return (ratio of peak memories, whether the process owned the file)."""
    command = [sys.executable, "-m", "tests.integration.duckdb_iterate", str(path), way, str(ROWS)]
    printed = subprocess.run(
        command, check=True, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    ).stdout
    seen, total, before, after, owner = json.loads(printed)
    assert (seen, total) == (ROWS, ROWS * (ROWS - 1) // 2)
    return after / before, owner


def peak_kb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1])


@pytest.mark.parametrize("way", ["alone", "between", "atomic"])
def test_many_rows_take_the_memory_of_a_few(path, way):
    """Kept in memory, a million rows of two columns took 2.6 times as much."""
    ratio, owner = iterate(path, way)
    assert owner
    assert ratio < 1.4


def test_many_rows_of_another_process_take_the_memory_of_a_few_in_both(path):
    owner = Child(path)
    owner("run", "SELECT * FROM numbers LIMIT 50000")
    before = peak_kb(owner.pid)
    ratio, owns = iterate(path, "between")
    after = peak_kb(owner.pid)
    owner.end()
    assert not owns
    assert ratio < 1.4
    assert after / before < 1.4


@pytest.mark.parametrize(
    "count", [0, 1, MEMORY_ROWS - 1, MEMORY_ROWS, MEMORY_ROWS + 1, MEMORY_ROWS + 3 * FILE_ROWS]
)
def test_rows_set_aside_come_back_in_order(count):
    left = [(number, str(number)) for number in range(count)]

    def read(limit):
        given, left[:limit] = left[:limit], []
        return given

    rows = KeptRows(read)
    assert left == []
    assert rows.fetchmany(3) == [(number, str(number)) for number in range(min(3, count))]
    rest = rows.fetchmany(None)
    assert [row[0] for row in rest] == list(range(min(3, count), count))
    assert rows.fetchmany(1) == []


def test_what_is_wrong_with_the_rest_is_told_to_its_reader_alone(tmp_path, monkeypatch):
    def broken(count):
        raise duckdb.ConversionException("Could not convert string 'x' to INT32")

    connection = ownership.connect(ownership.Place(f":memory:{tmp_path}"))
    reading = connection.execute("SELECT n FROM range(90000) r(n)")
    with monkeypatch.context() as patched:
        patched.setattr(connection.session, "rows", broken)
        following = connection.execute("SELECT 2")
    assert following.fetchall() == [(2,)]
    with pytest.raises(duckdb.ConversionException):
        reading.fetchall()
    ownership.release(f":memory:{tmp_path}")


def test_no_space_for_the_rest_is_told_to_its_reader_alone(tmp_path, monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    connection = ownership.connect(ownership.Place(f":memory:{tmp_path}"))
    reading = connection.execute("SELECT n FROM range(90000) r(n)")
    monkeypatch.setattr(kept.tempfile, "TemporaryFile", full)
    assert connection.execute("SELECT 2").fetchall() == [(2,)]
    with pytest.raises(StoreFull, match="TMPDIR"):
        reading.fetchall()
    ownership.release(f":memory:{tmp_path}")
