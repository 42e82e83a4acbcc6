"""From outbox to log: commit order, no gaps, nothing doubled, whatever happens in between."""

import random
import threading
import time

import pytest
from django.db import connection, transaction

from levada.changes import CHANGES, Position, Record
from levada.errors import (
    ForeignPosition,
    LogCorrupt,
    LogFenced,
    LogFull,
    SourceUnavailable,
)
from levada.log.embedded import EmbeddedLog
from levada.log.memory import MemoryLog
from levada.outbox import publish
from levada.outbox.models import Outbox
from levada.outbox.sources import open_source
from levada.relay import Relay

from .clients import Client

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def log(tmp_path):
    log = EmbeddedLog(tmp_path / "log.sqlite3", poll_s=0.005)
    yield log
    log.close()


@pytest.fixture
def source(db):
    source = open_source("default")
    yield source
    source.close()


@pytest.fixture
def relay(source, log):
    return Relay(source, log, batch_rows=1000)


@pytest.fixture
def client(transactional_db):
    with Client() as client:
        yield client


@pytest.fixture
def other(transactional_db):
    with Client() as client:
        yield client


def drain(relay):
    while relay.step():
        pass


def records(log, topic=CHANGES):
    position, found = log.beginning(topic), []
    while batch := log.read(position, 1000):
        found += list(batch)
        position = batch.end
    return found


def afters(log, topic=CHANGES):
    return [record.after for record in records(log, topic)]


def test_an_empty_outbox_relays_nothing(relay, log):
    assert relay.step() == 0
    assert log.topics() == ()


def test_committed_rows_reach_the_log_and_leave_the_outbox(relay, log, client):
    client.write("a", "b")
    client.begin().write("c", "d")
    client.commit()
    drain(relay)
    assert afters(log) == ["a", "b", "c", "d"]
    assert Outbox.objects.count() == 0
    assert relay.rows_total == 4


def test_a_record_says_what_the_row_said(relay, log, client):
    number = client.write("é🙂")
    expected = Outbox.objects.get().transaction
    drain(relay)
    assert records(log) == [
        Record(
            0, CHANGES, "shop.Order", "u", "[1]", None, "é🙂", "f", expected, number,
            "2026-11-21T08:30:00.000000+00:00", None,
        )
    ]  # fmt: skip


def test_a_rolled_back_transaction_leaves_nothing(relay, log, client):
    client.begin().write("never")
    client.rollback()
    client.write("yes")
    drain(relay)
    assert afters(log) == ["yes"]


def test_uncommitted_rows_wait_for_their_commit(relay, log, client):
    client.begin().write("late")
    drain(relay)
    assert afters(log) == []
    client.commit()
    drain(relay)
    assert afters(log) == ["late"]


def test_messages_go_to_their_topics(relay, log):
    with transaction.atomic():
        publish("orders.paid", {"order": 7}, key=7)
        publish("mails", "hello")
    drain(relay)
    (paid,) = records(log, "orders.paid")
    assert (paid.op, paid.key, paid.after, paid.label) == ("m", "7", '{"order": 7}', "")
    assert afters(log, "mails") == ['"hello"']


def test_a_new_relay_goes_on_where_the_last_one_stopped(source, log, client):
    client.write("a")
    drain(Relay(source, log))
    client.write("b")
    drain(Relay(source, log))
    assert afters(log) == ["a", "b"]


def test_a_relay_that_died_before_pruning_doubles_nothing(source, log, client, monkeypatch):
    client.write("a", "b")
    relay = Relay(source, log)
    monkeypatch.setattr(relay, "_prune", lambda **_: None)
    relay.step()
    assert Outbox.objects.count() == 2
    client.write("c")
    drain(Relay(source, log))
    assert afters(log) == ["a", "b", "c"]
    assert Outbox.objects.count() == 0


def test_of_two_relays_one_is_fenced(source, log, client):
    first, second = Relay(source, log), Relay(open_source("default"), log)
    drain(first)
    drain(second)
    client.write("a")
    drain(first)
    client.write("b")
    with pytest.raises(LogFenced, match="another relay"):
        drain(second)
    with pytest.raises(LogFenced):
        second.step()
    drain(first)
    assert afters(log) == ["a", "b"]
    second.source.close()


def test_a_fenced_relay_stops_running(source, log, client):
    relay = Relay(source, log)
    drain(relay)
    log.append([], source="default", expected=log.cursor("default"), cursor="1:1:")
    client.write("a")
    with pytest.raises(LogFenced):
        relay.run(threading.Event())


class FullOnce:
    """A log whose disk is full for the first append; the rest is the real log."""

    def __init__(self, log, after=False):
        self._log = log
        self._failures = 1
        self._after = after

    def __getattr__(self, name):
        return getattr(self._log, name)

    def append(self, *args, **kwargs):
        if self._failures:
            self._failures -= 1
            if self._after:
                self._log.append(*args, **kwargs)
            raise LogFull("no space is left")
        self._log.append(*args, **kwargs)


@pytest.mark.parametrize("after", [False, True])
def test_a_failed_append_loses_and_doubles_nothing(source, log, client, after):
    """`after`: the commit succeeded, but its success was not reported."""
    relay = Relay(source, FullOnce(log, after))
    client.write("a")
    with pytest.raises(LogFull):
        relay.step()
    assert isinstance(relay.error, LogFull)
    assert Outbox.objects.count() == 1
    client.write("b")
    drain(relay)
    assert relay.error is None
    assert afters(log) == ["a", "b"]
    assert Outbox.objects.count() == 0


def test_a_running_relay_survives_errors_that_pass(source, log, client):
    relay, stop = Relay(source, FullOnce(log)), threading.Event()
    client.write("a")
    thread = threading.Thread(target=relay.run, args=[stop])
    thread.start()
    try:
        assert log.wait(Position(log.epoch, CHANGES, 0), 60)
        client.write("b")
        assert log.wait(Position(log.epoch, CHANGES, 1), 60)
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert afters(log) == ["a", "b"]


def test_a_log_that_lost_records_is_noticed(source, log, client, tmp_path):
    client.write("a")
    drain(Relay(source, log))
    log.close()
    copy = (tmp_path / "log.sqlite3").read_bytes()
    client.write("b")
    drain(Relay(source, log))
    log.close()
    for old in tmp_path.glob("log.sqlite3*"):
        old.unlink()
    (tmp_path / "log.sqlite3").write_bytes(copy)
    with pytest.raises(LogCorrupt, match="older copy"):
        Relay(source, log).step()


def test_a_source_that_was_restored_is_noticed(source, log, client):
    cursor = "1000000" if connection.vendor == "sqlite" else "9000000000:9000000000:"
    log.append([], source="default", expected=None, cursor=cursor)
    with pytest.raises(ForeignPosition, match="restored"):
        Relay(source, log).step()


def test_a_cursor_of_another_vendor_is_refused(source, log):
    cursor = "5:6:" if connection.vendor == "sqlite" else "77/78/9/a"
    log.append([], source="default", expected=None, cursor=cursor)
    with pytest.raises(ForeignPosition, match="no position"):
        Relay(source, log).step()


def test_a_source_without_an_outbox_says_what_to_type(source, log):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE levada_outbox RENAME TO levada_hidden")
    try:
        with pytest.raises(SourceUnavailable, match="migrate"):
            Relay(source, log).step()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE levada_hidden RENAME TO levada_outbox")


class TestBacklog:
    """More rows than one batch holds."""

    def test_a_backlog_is_relayed_in_batches(self, source, log, client):
        for n in range(25):
            client.write(n)
        relay = Relay(source, log, batch_rows=10)
        assert [relay.step() for _ in range(4)] == [10, 10, 5, 0]
        assert afters(log) == [str(n) for n in range(25)]
        assert Outbox.objects.count() == 0

    def test_a_transaction_larger_than_a_batch_appears_whole(self, source, log, client):
        client.write("before")
        client.begin().write(*range(25))
        client.commit()
        client.write("after")
        relay = Relay(source, log, batch_rows=10)
        ends = []
        while relay.step():
            ends.append(log.end(CHANGES).offset)
        assert set(ends) <= {0, 1, 26, 27}
        assert afters(log) == ["before", *map(str, range(25)), "after"]
        assert Outbox.objects.count() == 0
        batch = log.read(Position(log.epoch, CHANGES, 1), 5)
        assert len(batch) in (25, 26)
        parts = log.read(Position(log.epoch, CHANGES, 1), 5, split=True)
        assert (len(parts), parts.whole) == (5, False)

    def test_transactions_known_by_number_come_as_they_are(self, source, log):
        """A batch ends with the last whole transaction in it, long before the backlog does."""
        for n in range(10):
            with transaction.atomic():
                publish("t", 3 * n)
                publish("t", 3 * n + 1)
                publish("t", 3 * n + 2)
        relay, ends = Relay(source, log, batch_rows=7), []
        while relay.step():
            ends.append(log.end("t").offset)
        assert ends == [6, 12, 18, 24, 30]
        assert afters(log, "t") == [str(n) for n in range(30)]

    @pytest.mark.parametrize("batch_rows", [7, 1000])
    def test_a_relay_that_died_in_a_large_transaction_finishes_it(
        self, source, log, client, batch_rows
    ):
        client.begin().write(*range(25))
        client.commit()
        Relay(source, log, batch_rows=10).step()
        assert log.end(CHANGES).offset == 0
        client.write("after")
        drain(Relay(source, log, batch_rows=batch_rows))
        assert afters(log) == [*map(str, range(25)), "after"]
        assert Outbox.objects.count() == 0

    def test_nothing_of_a_large_transaction_stays_in_the_outbox(self, source, log, client):
        """Its first rows were relayed by a relay that died, and no commit follows."""
        client.begin().write(*range(25))
        client.commit()
        Relay(source, log, batch_rows=10).step()
        drain(Relay(source, log, batch_rows=10))
        assert Outbox.objects.count() == 0
        assert source.covers(log.cursor("default"), source.position())

    def test_the_rows_of_a_large_transaction_need_not_be_remembered_one_by_one(
        self, source, log, client, monkeypatch
    ):
        """A relay that never has nothing to do empties the outbox of them all the same."""
        monkeypatch.setattr("levada.relay.relay.MOST_IDS", 15)
        client.begin().write(*range(45))
        client.commit()
        relay, remembered = Relay(source, log, batch_rows=10), []
        while relay.step():
            remembered.append(len(relay._prunable))
            if log.end(CHANGES).offset:
                break
        assert max(remembered) <= 15
        client.write("after")
        while log.end(CHANGES).offset < 46:
            assert relay.step()
        assert Outbox.objects.count() == 0
        assert afters(log) == [*map(str, range(45)), "after"]

    def test_the_end_of_a_backlog_comes_even_if_the_load_never_ends(self, source, log, client):
        for n in range(12):
            client.write(n)
        relay = Relay(source, log, batch_rows=5)
        for n in range(12, 40):
            relay.step()
            client.write(n)
            if log.end(CHANGES).offset:
                break
        assert log.end(CHANGES).offset >= 5
        drain(relay)
        assert [int(after) for after in afters(log)] == list(range(n + 1))

    def test_rows_deleted_by_hand_leave_no_open_end(self, source, log, client):
        client.begin().write(*range(25))
        client.commit()
        relay = Relay(source, log, batch_rows=10)
        relay.step()
        relay.step()
        Outbox.objects.all().delete()
        drain(relay)
        client.write("after")
        drain(relay)
        assert afters(log) == [*map(str, range(20)), "after"]

    def test_only_what_the_log_shows_leaves_the_outbox(self, source, log, client):
        client.begin().write(*range(25))
        client.commit()
        relay = Relay(source, log, batch_rows=10)
        relay.step()
        assert Outbox.objects.count() == 25
        drain(relay)
        assert Outbox.objects.count() == 0


class TestPositions:
    def test_a_position_is_covered_once_its_rows_are_in_the_log(self, source, log, client):
        relay = Relay(source, log)
        drain(relay)
        client.write("a")
        position = source.position()
        assert not source.covers(log.cursor("default"), position)
        drain(relay)
        assert source.covers(log.cursor("default"), position)

    def test_commits_without_captured_rows_need_no_relay(self, source, log, client):
        client.write("a")
        drain(Relay(source, log))
        client.run("CREATE TABLE unrelated (id integer)")
        client.run("DROP TABLE unrelated")
        assert source.covers(log.cursor("default"), source.position())

    def test_half_a_large_transaction_does_not_cover_it(self, source, log, client):
        client.begin().write(*range(25))
        client.commit()
        position, relay = source.position(), Relay(source, log, batch_rows=10)
        relay.step()
        assert not source.covers(log.cursor("default"), position)
        drain(relay)
        assert source.covers(log.cursor("default"), position)

    def test_a_snapshot_tells_the_records_it_shows_from_later_ones(self, source, log, client):
        client.write("a")
        with source.snapshot() as snapshot:
            client.write("b")
            sql = "SELECT after FROM levada_outbox ORDER BY id"
            assert list(snapshot.chunks(sql)) == [[("a",)]]
            position = snapshot.position
        drain(Relay(source, log))
        assert [source.visible(record, position) for record in records(log)] == [True, False]

    def test_a_snapshot_streams_in_chunks(self, source, client):
        client.begin().write(*range(25))
        client.commit()
        with source.snapshot() as snapshot:
            mark = "?" if snapshot.vendor == "sqlite" else "%s"
            sql = f"SELECT after FROM levada_outbox WHERE topic = {mark} ORDER BY id"
            chunks = list(snapshot.chunks(sql, [CHANGES], chunk_rows=10))
        assert [len(chunk) for chunk in chunks] == [10, 10, 5]
        assert chunks[0][0] == ("0",)

    def test_size_counts_what_waits(self, source, client, log):
        client.write("a", "b")
        assert source.size() == 2
        drain(Relay(source, log))
        assert source.size() == 0


def test_changed_is_false_only_when_nothing_happened(source, log, client):
    relay = Relay(source, log)
    drain(relay)
    if connection.vendor == "sqlite":
        assert not source.changed()
    client.write("a")
    assert source.changed()


@pytest.mark.postgresql
class TestInterleavings:
    """Transactions of several PostgreSQL sessions that overlap."""

    def test_a_late_committer_with_a_lower_id_is_not_skipped(self, relay, log, client, other):
        client.begin().write("lower id", key="[1]")
        other.write("higher id", key="[2]")
        drain(relay)
        assert afters(log) == ["higher id"]
        client.commit()
        drain(relay)
        assert afters(log) == ["higher id", "lower id"]

    def test_one_key_keeps_its_order_across_transactions(self, relay, log, client, other):
        """B commits first on the row; A, begun earlier, writes it afterwards and commits last."""
        client.begin().write("A other row", key="[1]")
        other.begin().write("B", key="[2]")
        other.commit()
        client.write("A", key="[2]")
        client.commit()
        drain(relay)
        assert [r.after for r in records(log) if r.key == "[2]"] == ["B", "A"]

    def test_a_transaction_stands_together_in_the_log(self, relay, log, client, other):
        client.begin().write("a1")
        other.begin().write("b1")
        client.write("a2")
        other.write("b2")
        other.commit()
        client.commit()
        drain(relay)
        assert afters(log) == ["a1", "a2", "b1", "b2"]
        assert len(log.read(log.beginning(CHANGES), 2)) == 2

    def test_a_long_open_transaction_stalls_nobody(self, relay, log, client, other):
        client.begin().write("open")
        for n in range(20):
            other.write(n)
            drain(relay)
        assert afters(log) == [str(n) for n in range(20)]
        assert Outbox.objects.count() == 0
        client.commit()
        drain(relay)
        assert afters(log)[-1] == "open"

    def test_an_open_transaction_of_another_database_stalls_nobody(self, relay, log, client):
        with Client(dbname="postgres") as elsewhere:
            elsewhere.begin().run("SELECT pg_current_xact_id()")
            client.write("a")
            drain(relay)
            assert afters(log) == ["a"]
            assert Outbox.objects.count() == 0
            elsewhere.rollback()

    def test_savepoints_belong_to_their_transaction(self, relay, log, client, other):
        client.begin()
        client.run("SAVEPOINT one")
        client.write("released")
        client.run("RELEASE one")
        client.run("SAVEPOINT two")
        client.write("rolled back")
        client.run("ROLLBACK TO two")
        client.run("SAVEPOINT three")
        client.write("kept")
        other.write("other")
        drain(relay)
        assert afters(log) == ["other"]
        client.commit()
        drain(relay)
        assert afters(log) == ["other", "released", "kept"]
        assert len({r.transaction for r in records(log) if r.after != "other"}) == 1

    def test_a_backlog_keeps_key_order_and_whole_transactions(self, source, log, client, other):
        """A starts first and ends last, around many others; the batch is smaller than all that."""
        client.begin().write("A first", key='["a"]')
        for n in range(30):
            other.write(f"{n}", key="[2]")
        client.write("A last", key="[2]")
        client.commit()
        other.write("end", key="[2]")
        drain(Relay(source, log, batch_rows=7))
        found = afters(log)
        assert found == [*map(str, range(30)), "A first", "A last", "end"]
        assert Outbox.objects.count() == 0

    def test_a_long_backlog_is_planned_in_several_goes(self, source, log, client, monkeypatch):
        monkeypatch.setattr("levada.outbox.postgresql.PLAN_TRANSACTIONS", 4)
        for n in range(30):
            client.write(n)
        drain(Relay(source, log, batch_rows=3))
        assert afters(log) == [str(n) for n in range(30)]

    def test_a_lost_connection_is_opened_again(self, relay, source, log, client):
        client.write("a")
        drain(relay)
        client.run("SELECT pg_terminate_backend(?)", (source._connection.info.backend_pid,))
        client.write("b")
        with pytest.raises(SourceUnavailable, match="does not answer"):
            drain(relay)
        drain(relay)
        assert afters(log) == ["a", "b"]


@pytest.mark.sqlite
class TestSQLiteFile:
    def test_bytes_that_are_no_utf8_stop_nobody(self, relay, log, client):
        client.run(
            "INSERT INTO levada_outbox (topic, label, op, key, after, fingerprint, changed_at)"
            " VALUES ('changes', 'shop.Order', 'c', '[1]', CAST(x'22ff22' AS TEXT), 'f', 'now')"
        )
        client.write("next")
        drain(relay)
        assert afters(log) == ['"\ufffd"', "next"]

    def test_pruning_gives_way_to_a_busy_writer_and_catches_up(self, relay, log, client, other):
        client.write("a")
        other.begin()
        assert relay.step() == 1
        assert relay.error is None
        other.rollback()
        assert Outbox.objects.count() == 1
        drain(relay)
        assert Outbox.objects.count() == 0
        assert afters(log) == ["a"]

    def test_a_missing_database_is_not_created(self, settings, tmp_path, log):
        source = open_source("default")
        path = tmp_path / "missing.sqlite3"
        before = connection.settings_dict["NAME"]
        connection.settings_dict["NAME"] = str(path)
        try:
            with pytest.raises(SourceUnavailable, match="does not answer"):
                source.size()
        finally:
            connection.settings_dict["NAME"] = before
        assert not path.exists()


def test_a_random_concurrent_load_arrives_complete_and_in_order(source, log):
    """Writers with transactions of all sizes, some rolled back, each key counted under a lock."""
    writers, transactions, keys = 6, 40, 5
    with Client() as setup:
        setup.run("CREATE TABLE counter (id integer PRIMARY KEY, n integer)")
        for key in range(keys):
            setup.run("INSERT INTO counter VALUES (?, 0)", (key,))
    errors, committed = [], []

    def write(seed):
        rng = random.Random(seed)
        with Client() as client:
            for _ in range(transactions):
                client.begin()
                rows = []
                # Ascending keys: the writers must not deadlock.
                for key in sorted(rng.sample(range(keys), rng.randint(1, 3))):
                    (n,) = client.run(
                        "UPDATE counter SET n = n + 1 WHERE id = ? RETURNING n", (key,)
                    ).fetchone()
                    client.write(n, key=f"[{key}]")
                    rows.append((f"[{key}]", str(n)))
                if rng.random() < 0.2:
                    client.rollback()
                else:
                    client.commit()
                    committed.extend(rows)

    def guarded(function, *args):
        try:
            function(*args)
        except BaseException as error:
            errors.append(error)

    relay, stop = Relay(source, log, batch_rows=7), threading.Event()
    relaying = threading.Thread(target=guarded, args=[relay.run, stop])
    threads = [threading.Thread(target=guarded, args=[write, seed]) for seed in range(writers)]
    try:
        for thread in [relaying, *threads]:
            thread.start()
        for thread in threads:
            thread.join(120)
        give_up_at = time.monotonic() + 60
        while source.size() and time.monotonic() < give_up_at and not errors:
            stop.wait(0.01)
    finally:
        stop.set()
        relaying.join(60)
        with Client() as setup:
            setup.run("DROP TABLE counter")
    assert not errors
    found = [(record.key, record.after) for record in records(log)]
    assert sorted(found) == sorted(committed)
    for key in range(keys):
        counts = [int(after) for k, after in found if k == f"[{key}]"]
        assert counts == list(range(1, len(counts) + 1))


def test_the_memory_log_takes_the_same_relay(source, client):
    log = MemoryLog()
    client.write("a", "b")
    drain(Relay(source, log))
    assert afters(log) == ["a", "b"]
