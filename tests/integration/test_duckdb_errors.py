"""Each failure that happens in a database's life, really made, in Django's class for it."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DataError,
    IntegrityError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    connections,
    transaction,
)

from levada.errors import StoreBusy, StoreFull, StoreUnreadable
from levada.stores.duckdb import failures, ownership
from tests.conditions import wait_until
from tests.integration.duckdb_alias import alias_with

MANY = "SELECT count(*) FROM range(10000000000000) r(n) WHERE n % 7 = 3"
"""A statement that takes days, in no memory."""


@pytest.fixture(autouse=True)
def _with_databases(django_db_blocker):
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.duckdb"


@pytest.fixture
def duck():
    with alias_with() as duck:
        run("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, c INTEGER CHECK (c > 0))")
        yield duck


def run(sql, params=None, alias="duck"):
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


def make_file(path):
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT n FROM range(1000) r(n)")


@contextmanager
def somebody():
    """Without root's rights: as root, nothing is forbidden."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELEC 1", ProgrammingError),
        ("SELECT * FROM nowhere", ProgrammingError),
        ("SELECT nothing FROM t", ProgrammingError),
        ("SELECT nothing(1)", ProgrammingError),
        ("CREATE TABLE t (a INTEGER)", ProgrammingError),
        ("INSERT INTO t (id) VALUES (1, 2)", ProgrammingError),
        ("SELECT * FROM read_text('/etc/passwd')", ProgrammingError),
        ("SET threads = 1", ProgrammingError),
        ("EXPLAIN (FORMAT nothing) SELECT 1", ProgrammingError),
        ("SELECT (SELECT n FROM range(2) r(n))", ProgrammingError),
        ("INSERT INTO t VALUES (1, NULL, 1)", IntegrityError),
        ("INSERT INTO t VALUES (1, 1, 0)", IntegrityError),
        ("INSERT INTO t VALUES (1, 1, 1), (1, 1, 1)", IntegrityError),
        ("INSERT INTO t VALUES (99999999999, 1, 1)", DataError),
        ("SELECT CAST('x' AS INTEGER)", DataError),
        ("SELECT 2147483647::INTEGER + 1::INTEGER", DataError),
        ("SELECT 1 // 0", DataError),
        ("SELECT strptime('x', '%Y')", DataError),
        ("SELECT regexp_matches('a', '(')", DataError),
        ("SELECT regexp_matches('a', '[')", DataError),
        ("SELECT regexp_matches('a', '*')", DataError),
        (r"SELECT regexp_matches('a', '\q')", DataError),
        ("SELECT json('{')", DataError),
        ("SELECT '{'::JSON", DataError),
        ("SELECT chr(-1)", DataError),
        ("SELECT unhex('zz')", DataError),
        ("SELECT TIMESTAMP '2026-01-01' AT TIME ZONE 'No/Where'", DataError),
        ("SELECT DATE '2026-02-30'", DataError),
        ("SELECT date_trunc('nothing', now())", DataError),
        ("CREATE INDEX i ON t (n) WHERE n > 1", NotSupportedError),
    ],
)
def test_a_statement_at_fault_raises_djangos_class(duck, sql, kind):
    with pytest.raises(kind) as raised:
        run(sql)
    assert type(raised.value) is kind


def test_a_value_python_alone_knows_is_a_programming_error(duck):
    with pytest.raises(ProgrammingError, match="Unable to transform python value"):
        run("SELECT %s", [object()])


def test_a_sequence_at_its_end_is_a_data_error(duck):
    run("CREATE SEQUENCE s MAXVALUE 2")
    assert run("SELECT nextval('s') FROM range(2)") == [(1,), (2,)]
    with pytest.raises(DataError, match="maximum value"):
        run("SELECT nextval('s')")


def test_a_sequence_in_use_cannot_be_dropped(duck):
    run("CREATE SEQUENCE s")
    run("CREATE TABLE u (id INTEGER DEFAULT nextval('s'))")
    with pytest.raises(InternalError, match="depend"):
        run("DROP SEQUENCE s")


def test_every_class_of_duckdbs_has_one_of_djangos():
    """None is left to Django's bare DatabaseError, which tells nobody what to do."""
    own = {
        "DataError", "DatabaseError", "Error", "IntegrityError", "InternalError",
        "NotSupportedError", "OperationalError", "ProgrammingError",
    }  # fmt: skip
    pep249 = tuple(getattr(duckdb, name) for name in own - {"Error", "DatabaseError"})
    for name in dir(duckdb):
        kind = getattr(duckdb, name)
        if isinstance(kind, type) and issubclass(kind, duckdb.Error):
            assert issubclass(type(failures.rename(kind("what"), "a.duckdb")), pep249), name


def test_two_transactions_on_one_row_give_an_operational_error_that_says_run_again(duck):
    run("INSERT INTO t VALUES (1, 1, 1)")
    other = ownership.connect(duck.place)
    with transaction.atomic("duck"):
        run("UPDATE t SET n = 2")
        other.begin()
        with pytest.raises(duckdb.OperationalError, match="Run the transaction again"):
            other.execute("UPDATE t SET n = 3")
        other.rollback()
    assert run("SELECT n FROM t") == [(2,)]
    other.close()


@pytest.mark.parametrize("damage", ["empty", "cut short", "another kind", "WAL"])
def test_a_damaged_file_is_unreadable(path, damage):
    killed = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1])\n"
        "c.execute('CREATE TABLE t AS FROM range(100000)'); os._exit(0)"
    )
    if damage == "WAL":
        subprocess.run([sys.executable, "-c", killed, str(path)], check=True)
        wal = path.with_name("store.duckdb.wal")
        content = wal.read_bytes()
        wal.write_bytes(
            content[: len(content) // 2] + b"?" * 99 + content[len(content) // 2 + 99 :]
        )
    else:
        make_file(path)
        content = path.read_bytes()
        path.write_bytes(
            {"empty": b"", "cut short": content[:9_000], "another kind": b"a,b\n" * 9_000}[damage]
        )
    with alias_with(name=path), pytest.raises(OperationalError, match=r"levada rebuild"):
        run("SELECT count(*) FROM t")


def test_a_file_that_duckdbs_own_program_holds_is_busy_and_names_it(path):
    make_file(path)
    holding = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); input()"
    program = subprocess.Popen(
        [sys.executable, "-c", holding, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    program.stdout.readline()
    try:
        message = rf"has been open in .*\(PID {program.pid}\) .* End that program"
        options = {"timeout_s": 3}
        with alias_with(options, name=path), pytest.raises(OperationalError, match=message) as told:
            run("SELECT 1")
        assert isinstance(told.value, StoreBusy)
    finally:
        program.communicate(b"\n")
    with alias_with(name=path):
        assert run("SELECT count(*) FROM t") == [(1000,)]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    message = r"none/store\.duckdb cannot be opened .*See that its folder exists"
    with alias_with(name=tmp_path / "none" / "store.duckdb") as duck:
        with pytest.raises(OperationalError, match=message):
            run("SELECT 1")
        (tmp_path / "none").mkdir()
        assert run("SELECT 1") == [(1,)]
        assert ownership.owns(duck.path)


def test_a_folder_lost_while_the_file_is_open_is_named(path):
    folder = path.parent / "lost"
    folder.mkdir()
    with alias_with(name=folder / "store.duckdb"):
        run("CREATE TABLE t AS SELECT 1 AS a")
        connections["duck"].close()
        ownership.release(str(folder / "store.duckdb"))
        run("SELECT 1")
        shutil.rmtree(folder)
        with pytest.raises(OperationalError, match="See that its folder exists") as raised:
            run("INSERT INTO t VALUES (2)")
        assert isinstance(raised.value, StoreUnreadable)


@pytest.mark.parametrize("forbidden", ["file", "folder"])
def test_a_file_or_folder_without_permission_is_named(forbidden):
    # Not tmp_path: nobody but its owner may enter the folders above it.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_file(folder / "store.duckdb")
        if forbidden == "file":
            (folder / "store.duckdb").chmod(0o000)
        folder.chmod(0o777 if forbidden == "file" else 0o555)
        told = r"Permission denied.*this user may write there"
        with (
            alias_with(name=folder / "store.duckdb"),
            somebody(),
            pytest.raises(OperationalError, match=told),
        ):
            run("SELECT 1")


def test_a_full_disk_is_named_and_passes(path):
    with alias_with(name=path):
        run("CREATE TABLE t AS SELECT 1::UBIGINT AS a")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        try:
            with pytest.raises(OperationalError, match="No space is left where") as raised:
                run("INSERT INTO t SELECT hash(n) FROM range(2000000) r(n)")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert isinstance(raised.value, StoreFull)
        assert run("SELECT count(*) FROM t") == [(1,)]


def test_too_little_memory_is_an_operational_error_and_the_next_statement_runs():
    with alias_with({"config": {"memory_limit": "50MB"}}):
        with pytest.raises(OperationalError, match="raise memory_limit"):
            run("SELECT list(md5(n::VARCHAR)) FROM range(5000000) r(n)")
        assert run("SELECT 1") == [(1,)]


def test_an_interrupted_statement_is_an_operational_error(duck):
    duck.ensure_connection()
    session = duck.connection.session
    ended = threading.Event()

    def interrupt():
        wait_until(lambda: session.running)
        while not ended.wait(0.01):
            session.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(OperationalError, match=r"(?i)interrupt"):
            run(MANY)
    finally:
        ended.set()
        thread.join()
    assert run("SELECT 1") == [(1,)]


def test_a_statement_has_the_time_the_settings_give_it():
    with alias_with({"config": {"max_execution_time": 200}}):
        with pytest.raises(OperationalError, match="or raise max_execution_time in OPTIONS"):
            run(MANY)
        assert run("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "config", [{"memry_limit": "1GB"}, {"memory_limit": "much"}, {"threads": 0}, "4GB"]
)
def test_a_setting_duckdb_does_not_know_is_improperly_configured(config):
    with (
        alias_with({"config": config}),
        pytest.raises(ImproperlyConfigured, match=r"OPTIONS'?\]?\['config'\]"),
    ):
        run("SELECT 1")


@pytest.mark.parametrize(
    ("sql", "step"),
    [
        ("SELECT * FROM read_text('/etc/passwd')", r"in OPTIONS\['external'\]"),
        ("SET threads = 1", r"Set it in OPTIONS\['config'\]"),
        ("LOAD httpfs", r"in OPTIONS\['extensions'\]"),
    ],
)
def test_what_the_settings_forbid_names_the_setting(duck, sql, step):
    with pytest.raises(ProgrammingError, match=step):
        run(sql)
