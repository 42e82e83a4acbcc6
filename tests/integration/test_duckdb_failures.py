"""Files that cannot be read or written: named errors that say what to do next."""

import resource

import duckdb
import pytest
from django.db import OperationalError, connections

from levada.errors import StoreBusy, StoreFull, StoreUnreadable
from levada.stores.duckdb import ownership
from levada.stores.duckdb.failures import rename
from tests.conditions import wait_until


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "store.duckdb"
    yield path
    ownership.release(str(path))


def test_a_file_that_is_not_duckdbs_is_unreadable(path):
    path.write_text("name,amount\n" * 10_000)
    with pytest.raises(StoreUnreadable, match=r"manage.py levada rebuild"):
        ownership.connect(ownership.Place(str(path)))
    assert path.read_text().startswith("name,amount")


@pytest.mark.parametrize("damage", ["cut short", "scribbled over"])
def test_a_damaged_file_is_unreadable(path, damage):
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT * FROM range(10000)")
    content = path.read_bytes()
    changed = content[:9_000] if damage == "cut short" else content[:5_000] + b"?" * 4_000
    path.write_bytes(changed)
    with pytest.raises(StoreUnreadable, match=str(path)):
        ownership.connect(ownership.Place(str(path)))
    path.write_bytes(content)
    assert ownership.connect(ownership.Place(str(path))).execute("FROM t").fetchone() == (0,)


def test_a_file_of_a_newer_duckdb_is_unreadable():
    text = "Trying to read a database file with version number 999, but we can only read version 68"
    error = rename(duckdb.IOException(text), "a.duckdb")
    assert isinstance(error, StoreUnreadable)
    assert "Upgrade duckdb" in str(error)


def test_a_full_disk_is_named_and_passes_when_there_is_space_again(path):
    connection = ownership.connect(ownership.Place(str(path)))
    connection.execute("CREATE TABLE t AS SELECT 1::UBIGINT AS a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(StoreFull, match=r"No space is left where .*store\.duckdb is written"):
            connection.execute("INSERT INTO t SELECT hash(n) FROM range(2000000) r(n)")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
    connection.execute("INSERT INTO t SELECT hash(n) FROM range(2000000) r(n)")
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (2_000_001,)


def test_a_file_held_by_another_program_is_busy(path):
    with duckdb.connect(str(path)):  # this process itself, but not through Levada's lock
        lock = ownership._lock(str(path))
        try:
            place = ownership.Place(str(path), timeout_s=0.2)
            with pytest.raises(StoreBusy, match=r"fuser -v .*store\.duckdb"):
                ownership.connect(place)
        finally:
            ownership.os.close(lock)


def test_a_folder_that_does_not_exist_is_an_operational_error(tmp_path):
    with pytest.raises((duckdb.OperationalError, FileNotFoundError, OperationalError)):
        ownership.connect(ownership.Place(str(tmp_path / "none" / "store.duckdb")))


def test_an_instance_duckdb_declares_invalid_is_opened_anew(path, monkeypatch):
    place = ownership.Place(str(path))
    connection = ownership.connect(place)
    connection.execute("CREATE TABLE t AS SELECT 1 AS a")

    class Broken:
        def execute(self, sql, params):
            raise duckdb.FatalException("database has been invalidated")

        def interrupt(self):
            raw.interrupt()

        def close(self):
            raw.close()

    raw, connection.session.raw = connection.session.raw, Broken()
    with pytest.raises(duckdb.FatalException):
        connection.execute("SELECT 1")
    wait_until(lambda: not ownership.owns(str(path)))
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]


@pytest.mark.django_db(databases=["default", "analytics"])
def test_a_missing_name_or_unknown_option_is_refused():
    wrapper = connections["analytics"].copy()
    wrapper.settings_dict["NAME"] = ""
    with pytest.raises(Exception, match=r"has no NAME. Write: 'NAME': BASE_DIR"):
        wrapper.connect()
    wrapper.settings_dict["NAME"] = ":memory:"
    wrapper.settings_dict["OPTIONS"] = {"memory": "4GB"}
    with pytest.raises(Exception, match="has no option 'memory'"):
        wrapper.connect()
