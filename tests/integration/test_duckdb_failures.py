"""Files that cannot be read or written: named errors that say what to do next."""

import resource
import struct

import duckdb
import pytest
from django.db import connections

from levada.errors import StoreBusy, StoreFull, StoreMissing, StoreUnreadable
from levada.stores import open_store
from levada.stores.duckdb import ownership
from tests.conditions import wait_until

VERSION_AT = 12
"""Where a DuckDB file says its storage version: after a checksum of 8 bytes and "DUCK"."""


def checksum(content):
    """Return the checksum of a DuckDB file's first header, as DuckDB computes it."""
    found = 5381
    for (word,) in struct.iter_unpack("<Q", content[8:4096]):
        found ^= word * 0xBF58476D1CE4E5B9 & (2**64 - 1)
    return found


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


def test_a_file_of_a_newer_duckdb_is_unreadable(path):
    duckdb.connect(str(path)).close()
    content = bytearray(path.read_bytes())
    assert checksum(content) == struct.unpack_from("<Q", content)[0]
    struct.pack_into("<Q", content, VERSION_AT, 1_000)
    struct.pack_into("<Q", content, 0, checksum(content))
    path.write_bytes(content)

    with pytest.raises(StoreUnreadable, match=r"version number 1000") as refused:
        ownership.connect(ownership.Place(str(path)))

    assert f"{path} is not a database this DuckDB ({duckdb.__version__}) can read" in str(
        refused.value
    )
    assert "Upgrade duckdb" in str(refused.value)
    assert path.read_bytes() == content


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


def test_who_only_looks_makes_no_file(path):
    with pytest.raises(StoreMissing, match=r"no file .*store\.duckdb.*levada run"):
        ownership.connect(ownership.Place(str(path), create=False))
    assert list(path.parent.iterdir()) == []


def test_a_file_that_goes_while_somebody_opens_it_is_not_made_again(path, monkeypatch):
    """`status` looked for the file, then opened it; *Delete the replica* came in between."""
    duckdb.connect(str(path)).close()
    take_lock = ownership._lock

    def delete_first(path):
        ownership.delete(ownership.Place(path))
        return take_lock(path)

    lock = iter((delete_first, take_lock, take_lock))
    monkeypatch.setattr(ownership, "_lock", lambda path: next(lock)(path))
    with pytest.raises(StoreMissing):
        ownership.connect(ownership.Place(str(path), create=False))
    assert not path.exists()
    monkeypatch.undo()
    assert ownership.connect(ownership.Place(str(path))).execute("SELECT 1").fetchone() == (1,)


@pytest.mark.django_db(transaction=True, databases=["default", "analytics"])
def test_a_store_that_is_only_looked_at_was_never_filled_until_there_is_a_file(path, monkeypatch):
    monkeypatch.setitem(connections.settings["analytics"], "NAME", path)
    store = open_store("analytics", create=False)
    assert (store.position(), store.specs(), store.generation()) == (None, {}, 0)
    with pytest.raises(StoreMissing):
        store.connection.execute("SELECT 1")
    assert not path.exists()

    filled = open_store("analytics")
    filled.connection.execute("CREATE TABLE t AS SELECT 7 AS a")
    assert store.connection.execute("FROM t").fetchone() == (7,)
    filled.close()

    ownership.delete(ownership.Place(str(path)))
    assert store.position() is None
    assert not path.exists()
    store.close()
