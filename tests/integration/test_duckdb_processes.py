"""Several real processes on one DuckDB file: who owns it, who is served, who dies."""

import datetime
import decimal
import hashlib
import os
import signal
import socket
import stat
import threading
import time
import uuid
from pathlib import Path

import pyarrow
import pytest

from levada.errors import StoreBusy, StoreGone
from levada.stores.duckdb import ownership, wire
from tests.conditions import wait_until
from tests.integration.duckdb_child import Child, ChildError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "store.duckdb"
    yield str(path)
    ownership.release(str(path))


@pytest.fixture
def start(path):
    children = []

    def start(**options):
        children.append(Child(path, **options))
        return children[-1]

    yield start
    for child in children:
        child.process.send_signal(signal.SIGCONT)
        child.end()


def test_the_first_process_owns_the_file_and_the_second_is_served(start):
    first, second = start(), start()
    first("run", "CREATE TABLE t (batch INTEGER, v DOUBLE)")
    second("run", "INSERT INTO t VALUES (1, 0.5)")
    assert first("run", "SELECT * FROM t") == [[1, 0.5]]
    assert (first("owns"), second("owns")) == (True, False)


def test_rows_and_arrow_travel_between_processes(start):
    owner, client = start(), start()
    owner("run", "SELECT 1")
    for each in (owner, client):
        assert each("arrow", 200_000) == [19999900000, 200_000, "é"]
        assert each("stream", 100_000) == 100_000


def test_sha512_which_duckdb_lacks_is_computed_for_owner_and_client(start):
    owner, client = start(), start()
    expected = [[hashlib.sha512(text.encode()).hexdigest()] for text in ("", "é")] + [[None]]
    for each in (owner, client):
        assert each("run", "SELECT sha512(x) FROM (VALUES (''), ('é'), (NULL)) t (x)") == expected


def test_plain_values_come_back_from_the_owner_as_they_went(start, path):
    start()("run", "SELECT 1")
    connection = ownership.connect(ownership.Place(path))
    assert not ownership.owns(path)
    values = [
        None, True, -(2**63), 2**100, 0.1, "é🦆'", b"\x00\xff", decimal.Decimal("1.50"),
        datetime.date(1, 1, 1), datetime.time(1, 2, 3, 4), datetime.timedelta(days=-1, seconds=3),
        datetime.datetime(2026, 11, 21, 8, 30, 0, 123456), uuid.UUID(int=5), [1, 2], {"a": 1},
    ]  # fmt: skip
    columns = ", ".join("?" for _ in values)
    assert list(connection.execute(f"SELECT {columns}", values).fetchone()) == values
    zoned = connection.execute("SELECT TIMESTAMPTZ '2026-07-01 10:00:00+00'").fetchone()[0]
    assert zoned == datetime.datetime(2026, 7, 1, 10, tzinfo=datetime.UTC)
    connection.close()


def test_errors_of_the_owner_arrive_by_their_class(start):
    owner, client = start(), start()
    owner("run", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    for sql, name in (
        ("SELECT * FROM nowhere", "CatalogException"),
        ("INSERT INTO t VALUES (1), (1)", "ConstraintException"),
        ("SELECT CAST('x' AS INTEGER)", "ConversionException"),
    ):
        with pytest.raises(ChildError) as raised:
            client("run", sql)
        assert raised.value.name == name
    assert client("run", "SELECT 1") == [[1]]


def test_a_client_that_vanishes_rolls_back(start):
    owner, client = start(), start()
    owner("run", "CREATE TABLE t (a INTEGER)")
    client("begin")
    client("run", "INSERT INTO t VALUES (1)")
    client.kill()
    owner("run", "INSERT INTO t VALUES (2)")
    # The owner could not hand the file over while the transaction was open.
    start()("take_over", 30)
    assert owner("run", "SELECT a FROM t") == [[2]]


def test_the_query_of_a_client_that_vanishes_is_interrupted(start):
    owner, client = start(), start()
    owner("run", "SELECT 1")
    client("run", "SELECT 1")
    client.post("run", "SELECT count(*) FROM range(10000000000000) r(n) WHERE n % 7 = 3")
    client.kill()
    start()("take_over", 60)
    assert owner("owns") is False


def test_a_killed_owner_is_replaced_and_nothing_committed_is_lost(start):
    owner, first, second = start(), start(), start()
    owner("run", "CREATE TABLE t (a INTEGER)")
    for each in (owner, first, second):
        each("run", "INSERT INTO t VALUES (1)")
    owner("begin")
    owner("run", "INSERT INTO t VALUES (99)")
    owner.kill()
    assert first("run", "SELECT CAST(sum(a) AS INTEGER) FROM t") == [[3]]
    second("run", "INSERT INTO t VALUES (1)")
    assert first("run", "SELECT count(*) FROM t") == [[4]]
    assert first("owns") != second("owns")


def test_a_transaction_under_way_when_the_owner_dies_fails_by_name_and_can_be_repeated(start):
    owner, client = start(), start()
    owner("run", "CREATE TABLE t (a INTEGER)")
    client("begin")
    client("run", "INSERT INTO t VALUES (1)")
    owner.kill()
    with pytest.raises(ChildError) as raised:
        client("run", "SELECT 1")
    assert raised.value.name == StoreGone.__name__
    client("begin")
    client("run", "INSERT INTO t VALUES (2)")
    client("commit")
    assert client("run", "SELECT a FROM t") == [[2]]


def test_a_commit_the_owner_did_not_live_to_answer_fails_by_name(start):
    owner, client = start(), start()
    owner("run", "CREATE TABLE t (a INTEGER)")
    client("begin")
    client("run", "INSERT INTO t VALUES (1)")
    owner.kill()
    with pytest.raises(ChildError) as raised:
        client("commit")
    assert raised.value.name == StoreGone.__name__
    assert client("run", "SELECT a FROM t") == []


def test_a_read_under_way_when_the_owner_dies_is_asked_again(start):
    owner, client = start(), start()
    owner("run", "CREATE TABLE t AS SELECT 7 AS a")
    client("run", "SELECT 1")
    owner.kill(signal.SIGSTOP)
    client.post("run", "SELECT a FROM t")
    owner.kill()
    assert client.answer() == [[7]]
    assert client("owns")


def test_a_result_read_in_part_when_the_owner_dies_fails_by_name(start):
    owner, client = start(), start()
    owner("run", "SELECT 1")
    assert client("first_rows", 1_000_000) == [0, 1]
    owner.kill()
    with pytest.raises(ChildError) as raised:
        client("rest")
    assert raised.value.name == StoreGone.__name__
    assert client("run", "SELECT 5") == [[5]]


def test_the_file_is_handed_over_on_request_and_everybody_goes_on(start):
    web, keeper, other = start(), start(), start()
    web("run", "CREATE TABLE t (a INTEGER)")
    other("run", "INSERT INTO t VALUES (1)")
    keeper("take_over", 30)
    assert (web("owns"), keeper("owns"), other("owns")) == (False, True, False)
    for each in (web, other, keeper):
        each("run", "INSERT INTO t VALUES (1)")
    assert web("run", "SELECT count(*) FROM t") == [[4]]
    assert (web("owns"), keeper("owns"), other("owns")) == (False, True, False)


def test_a_handover_waits_for_the_owners_transaction(start):
    web, keeper = start(), start()
    web("run", "CREATE TABLE t (a INTEGER)")
    web("begin")
    web("run", "INSERT INTO t VALUES (1)")
    with pytest.raises(ChildError) as raised:
        keeper("take_over", 0.2)
    assert raised.value.name == StoreBusy.__name__
    assert "has not ended within 0.2 s" in str(raised.value)
    keeper.post("take_over", 60)
    web("run", "INSERT INTO t VALUES (2)")
    web("commit")
    keeper.answer()
    assert keeper("run", "SELECT count(*) FROM t") == [[2]]


def test_an_ending_owner_writes_its_wal_and_takes_its_socket_away(start, path):
    owner, client = start(), start()
    owner("run", "CREATE TABLE t AS SELECT 1 AS a")
    assert Path(f"{path}.sock").is_socket()
    assert client("run", "SELECT a FROM t") == [[1]]
    assert owner.end() == 0
    assert not Path(f"{path}.sock").exists()
    assert not Path(f"{path}.wal").exists()
    assert client("run", "SELECT a FROM t") == [[1]]
    assert client("owns")


def has_stopped(pid):
    """Say whether every thread has; a signal sent is not yet a signal that has arrived."""
    states = [task.joinpath("stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


def test_a_stopped_owner_is_named_with_what_to_do(start):
    owner, client = start(), start(timeout_s=1.5)
    owner("run", "SELECT 1")
    client("run", "SELECT 1")
    owner.kill(signal.SIGSTOP)
    wait_until(lambda: has_stopped(owner.pid))
    for _ in range(2):  # an open session, then a new one
        with pytest.raises(ChildError) as raised:
            client("run", "SELECT 1")
        assert raised.value.name == StoreBusy.__name__
        assert f"process {owner.pid}" in str(raised.value) or "another process" in str(raised.value)
        assert "kill" in str(raised.value) or "Wake" in str(raised.value)
    owner.kill(signal.SIGCONT)
    assert client("run", "SELECT 1") == [[1]]


def test_a_long_statement_is_no_silence(start, tmp_path):
    """The owner reads a pipe for longer than the client would bear silence."""
    owner, client = start(external=[tmp_path]), start(timeout_s=3)
    owner("run", "SELECT 1")
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    client.post(
        "run", f"SELECT a FROM read_csv('{pipe}', columns={{'a': 'INTEGER'}}, header=false)"
    )
    begun = time.monotonic()
    with pipe.open("w") as writer:
        wait_until(lambda: time.monotonic() > begun + 6)
        writer.write("5\n")
    assert client.answer() == [[5]]


def test_processes_that_open_at_once_make_one_owner(start):
    children = [start() for _ in range(6)]
    for child in children:
        child.post("run", "SELECT 1")
    assert [child.answer() for child in children] == [[[1]]] * 6
    children[0]("run", "CREATE TABLE t (a INTEGER)")
    for child in children:
        child("run", "INSERT INTO t VALUES (1)")
    assert children[0]("run", "SELECT count(*) FROM t") == [[6]]
    assert sum(child("owns") for child in children) == 1


def test_a_forked_child_never_touches_its_parents_instance(start, path):
    owner, other = start(), start()
    owner("run", "CREATE TABLE t (a INTEGER, b INTEGER)")
    assert owner("fork") == 0
    owner("run", "INSERT INTO t VALUES (3, 3)")
    assert other("run", "SELECT a FROM t ORDER BY a") == [[1], [2], [3]]
    assert owner("owns")
    owner.kill()
    assert other("run", "SELECT a FROM t ORDER BY a") == [[1], [2], [3]]


@pytest.mark.parametrize("by", ["the owner", "a client", "a process that never opened it"])
def test_a_deleted_file_starts_empty_and_open_connections_notice(start, path, by):
    owner, client = start(), start()
    owner("run", "CREATE TABLE t (a INTEGER)")
    client("run", "INSERT INTO t VALUES (1)")
    inode = os.stat(path).st_ino
    {"the owner": owner, "a client": client}.get(by, start())("delete", 10)
    for each in (client, owner):
        with pytest.raises(ChildError) as raised:
            each("run", "SELECT * FROM t")
        assert raised.value.name == "CatalogException"
    client("run", "CREATE TABLE t (a INTEGER)")
    assert owner("run", "SELECT count(*) FROM t") == [[0]]
    assert os.stat(path).st_ino != inode or owner("run", "SELECT count(*) FROM t") == [[0]]


def test_deleting_interrupts_a_transaction_that_does_not_end(start):
    owner, client = start(), start()
    owner("run", "CREATE TABLE t (a INTEGER)")
    client("begin")
    client("run", "INSERT INTO t VALUES (1)")
    owner("delete", 0.1)
    with pytest.raises(ChildError) as raised:
        client("commit")
    assert raised.value.name == StoreGone.__name__


def test_a_stale_socket_of_a_killed_owner_is_replaced(start, path):
    owner = start()
    owner("run", "CREATE TABLE t AS SELECT 4 AS a")
    owner.kill()
    assert Path(f"{path}.sock").is_socket()
    assert start()("run", "SELECT a FROM t") == [[4]]


def test_a_path_too_long_for_a_socket_is_served_elsewhere(tmp_path):
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    path = folder / "store.duckdb"
    owner, client = Child(path), Child(path)
    try:
        owner("run", "CREATE TABLE t AS SELECT 1 AS a")
        assert client("run", "SELECT a FROM t") == [[1]]
        assert client("owns") is False
        (address,) = ownership.Place(str(path)).addresses
        assert len(os.fsencode(address)) <= 107
        assert stat.S_IMODE(Path(address).parent.stat().st_mode) == 0o700
    finally:
        for child in (client, owner):
            child.end()


def test_the_socket_is_this_users_alone(start, path):
    start()("run", "SELECT 1")
    assert stat.S_IMODE(os.stat(f"{path}.sock").st_mode) == 0o600


def test_a_message_that_is_no_plain_value_is_refused_without_running_it(start, path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (f"{path}.evil",))

    owner = start()
    owner("run", "SELECT 1")
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(f"{path}.sock")
    line = wire.Wire(connection)
    line.send(("run", False, "SELECT ?", [Evil()], []))
    assert line.receive()[:2] == ("error", "NotPlain")
    with pytest.raises(wire.Closed):
        line.receive()
    connection.close()
    assert not Path(f"{path}.evil").exists()
    assert owner("run", "SELECT 1") == [[1]]


def test_garbage_on_the_socket_hurts_nobody(start, path):
    owner, client = start(), start()
    owner("run", "SELECT 1")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x01" + b"\xff" * 8, b"\x02\x00"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{path}.sock")
        connection.send(garbage)
        connection.close()
    assert client("run", "SELECT 1") == [[1]]


def test_readers_see_whole_batches_only_while_writers_and_owners_change(start):
    """Four readers, a writer, and an owner killed twice: no error, no half batch."""
    owner = start()
    owner("run", "CREATE TABLE t (batch INTEGER, v DOUBLE)")
    writer, *readers = [start() for _ in range(5)]
    writer.post("write", 60)
    for reader in readers:
        reader.post("read", 80)
    watch = start()
    wait_until(lambda: watch("run", "SELECT coalesce(max(batch), 0) FROM t")[0][0] >= 10)
    owner.kill()
    assert writer.answer() == 60
    for reader in readers:
        broken, *_ = reader.answer()
        assert broken == 0
    assert watch("read", 1)[1] >= 60


def test_threads_of_the_owner_read_while_it_serves(path):
    place = ownership.Place(path)
    connection = ownership.connect(place)
    connection.execute("CREATE TABLE t AS SELECT n FROM range(10000) r(n)")
    failures = []

    def read():
        mine = ownership.connect(place)
        try:
            for _ in range(50):
                assert mine.execute("SELECT count(*) FROM t").fetchall() == [(10_000,)]
        except BaseException as error:
            failures.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_reader_half_way_keeps_its_rows_when_the_file_is_handed_over(start, path):
    connection = ownership.connect(ownership.Place(path))
    cursor = connection.execute("SELECT n FROM range(100000) r(n)")
    assert len(cursor.fetchmany(10)) == 10
    start()("take_over", 30)
    assert len(cursor.fetchall()) == 99_990
    assert connection.fetch_arrow("SELECT 1 AS a") == pyarrow.table(
        {"a": pyarrow.array([1], pyarrow.int32())}
    )
    assert not ownership.owns(path)
    connection.close()
