"""Rebuild under live traffic, at every interleaving with the applier, and when things fail."""

import random
import threading
from contextlib import contextmanager

import duckdb
import pytest
from django.db import connection, connections, transaction

from levada.apply import rebuilding
from levada.apply.applier import Applier
from levada.changes import CHANGES
from levada.errors import (
    AlreadyRunning,
    ConfigurationError,
    PositionMoved,
    SchemaDrift,
    StoreBusy,
    StoreFull,
    Timeout,
    UnknownModel,
)
from levada.log.memory import MemoryLog
from levada.outbox.models import ReplicatedTable
from tests.conditions import wait_until
from tests.shop.models import Customer, Order, OrderLine, Seat

from .channel import Channel

pytestmark = pytest.mark.django_db(transaction=True)
SEATS = "SELECT number FROM shop_seat ORDER BY 1"


@pytest.fixture
def channel(tmp_path):
    channel = Channel(tmp_path / "store.duckdb")
    yield channel
    channel.close()


def seat(number):
    return Seat.objects.create(row="A", number=number)


def shadows(channel):
    return channel.new_store().shadows()


def at_point(monkeypatch, name, act):
    """Call `act` once, when the fault point `name` is reached."""
    left = [act]

    def point(reached):
        if reached == name and left:
            left.pop()()

    monkeypatch.setattr(rebuilding.faults, "point", point)
    return left


def test_an_empty_store_is_filled(channel):
    seat(1)
    end = channel.rebuild()
    assert channel.rows(SEATS) == [(1,)]
    assert channel.store.position() == end
    assert set(channel.store.specs()) == set(rebuilding.wanted_labels("analytics"))
    assert shadows(channel) == []


def test_one_table_is_mended_and_the_others_are_left(channel):
    seat(1)
    Customer.objects.create(name="Ana")
    channel.drain()
    channel.rows("UPDATE shop_seat SET number = 9")
    channel.rows("UPDATE shop_customer SET name = 'wrong'")
    channel.rebuild(["shop.Seat"])
    assert channel.rows(SEATS) == [(1,)]
    assert channel.rows("SELECT name FROM shop_customer") == [("wrong",)]


def test_an_unknown_table_is_refused_by_name(channel):
    with pytest.raises(UnknownModel, match=r"shop\.Nothing"):
        channel.rebuild(["shop.Nothing"])


def test_a_table_without_triggers_is_refused_by_name(channel):
    row = ReplicatedTable.objects.get(label="shop.Seat")
    row.delete()
    try:
        with pytest.raises(ConfigurationError, match=r"shop\.Seat.*migrate"):
            channel.rebuild()
    finally:
        row.save(force_insert=True)


def test_a_table_altered_behind_django_is_named_and_the_store_left(channel):
    """The triggers still say the old columns; only `migrate` can tell them the new ones."""
    seat(1)
    channel.drain()
    with connection.cursor() as cursor:
        cursor.execute("SELECT spec FROM levada_table WHERE label = 'shop.Seat'")
        (spec,) = cursor.fetchone()
        wrong = spec.replace('"taken"', '"gone"')
        cursor.execute("UPDATE levada_table SET spec = %s WHERE label = 'shop.Seat'", [wrong])
    try:
        with pytest.raises(ConfigurationError, match=r"shop\.Seat.*gone.*migrate"):
            channel.rebuild()
        assert channel.rows(SEATS) == [(1,)]
    finally:
        ReplicatedTable.objects.filter(label="shop.Seat").update(spec=spec)


def test_a_reader_in_a_transaction_keeps_the_tables_it_began_with(channel):
    seat(1)
    channel.drain()
    reader = channel.root.cursor()
    reader.begin()
    assert reader.execute(SEATS).fetchall() == [(1,)]
    seat(2)
    channel.rebuild()
    assert reader.execute(SEATS).fetchall() == [(1,)]
    reader.commit()
    assert reader.execute(SEATS).fetchall() == [(1,), (2,)]


WHEN = [
    "rebuild.before_snapshot",
    "rebuild.in_load",
    "rebuild.after_load",
    "rebuild.in_replay",
]


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "only_relayed"])
@pytest.mark.parametrize("point", WHEN)
def test_changes_in_the_middle_are_not_lost_and_not_doubled(channel, monkeypatch, point, applied):
    """The applier runs in the middle of a rebuild, or the changes wait in the log."""
    for number in range(6):
        seat(number)
    channel.drain()
    seat(6)  # so that there is something to replay

    def change():
        seat(10)
        Seat.objects.filter(number=1).update(taken=True)
        Seat.objects.filter(number=2).delete()
        Seat.objects.filter(number=3).update(number=13)
        channel.relay_all()
        if applied:
            channel.drain()

    left = at_point(monkeypatch, point, change)
    channel.rebuild(["shop.Seat"])
    assert not left
    channel.drain()
    assert channel.rows(SEATS) == [(0,), (1,), (4,), (5,), (6,), (10,), (13,)]
    assert channel.verify().equal


def test_the_other_tables_come_along_to_the_position_of_the_swap(channel, monkeypatch):
    """Without an applier the swap itself brings every table to one position."""
    channel.drain()

    def change():
        seat(1)
        Customer.objects.create(name="Ana")

    at_point(monkeypatch, "rebuild.after_load", change)
    end = channel.rebuild(["shop.Seat"])
    assert channel.rows("SELECT count(*) FROM shop_seat") == channel.rows(
        "SELECT count(*) FROM shop_customer"
    )
    assert end == channel.store.position()
    channel.drain()
    assert channel.verify().equal


def test_a_store_ahead_of_the_shadows_is_never_taken_back(channel, monkeypatch):
    """The applier commits after the last replay and before the swap."""
    channel.drain()
    seat(1)
    swap = rebuilding.Rebuild._swap

    def after_the_applier(self, specs, at):
        seat(2)
        Customer.objects.create(name="Ana")
        channel.drain()
        assert channel.store.position().offset > at.offset
        return swap(self, specs, at)

    monkeypatch.setattr(rebuilding.Rebuild, "_swap", after_the_applier)
    before = channel.rebuild(["shop.Seat"])
    assert before == channel.store.position() == channel.log.end(CHANGES)
    assert channel.rows(SEATS) == [(1,), (2,)]
    assert channel.rows("SELECT count(*) FROM shop_customer") == [(1,)]


def test_an_applier_that_commits_inside_the_swap_makes_one_of_the_two_try_again(
    channel, monkeypatch
):
    """Whichever claims the position first wins; the other finds out before it commits."""
    channel.drain()
    seat(1)
    outcomes = []
    store = channel.new_store()
    turn = store._turn

    def apply_before_the_claim(state, end):
        if not outcomes:
            seat(2)
            channel.drain()
            outcomes.append("applied")
        try:
            turn(state, end)
        except (PositionMoved, duckdb.TransactionException):
            outcomes.append("refused")
            raise
        seat(3 + len(outcomes))
        channel.relay_all()
        with pytest.raises(StoreBusy):
            channel.applier.step()
        outcomes.append("claimed")

    monkeypatch.setattr(store, "_turn", apply_before_the_claim)
    rebuilding.rebuild(
        "analytics", store=store, log=channel.log, source=channel.source, pump=channel.relay.step
    )
    assert outcomes[:3] == ["applied", "refused", "claimed"]
    channel.drain()
    assert channel.verify().equal


def relay_another_shape(channel, number):
    """Relay a change of a seat as if triggers of another shape had captured it."""
    seat(number)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE levada_outbox SET fingerprint = 'aaaaaaaaaaaa' WHERE label = 'shop.Seat'"
        )
    channel.relay_all()


def test_a_changed_shape_in_the_middle_starts_it_again(channel, monkeypatch):
    seat(1)
    channel.drain()
    left = at_point(monkeypatch, "rebuild.after_load", lambda: relay_another_shape(channel, 2))
    channel.rebuild(["shop.Seat"])
    assert not left
    assert channel.rows(SEATS) == [(1,), (2,)]
    assert shadows(channel) == []


def test_a_shape_that_never_settles_ends_in_drift_and_leaves_the_store(channel, monkeypatch):
    seat(1)
    channel.drain()
    numbers = iter(range(100, 200))

    def point(reached):
        if reached == "rebuild.after_load":
            relay_another_shape(channel, next(numbers))

    monkeypatch.setattr(rebuilding.faults, "point", point)
    with pytest.raises(SchemaDrift):
        channel.rebuild(["shop.Seat"])
    assert channel.rows(SEATS) == [(1,)]
    assert shadows(channel) == []


def test_a_replaced_log_is_taken_over_by_a_rebuild_of_everything(channel):
    seat(1)
    channel.drain()
    seat(2)
    other = MemoryLog()
    channel.log = channel.relay.log = other
    channel.relay = type(channel.relay)(channel.source, other)
    channel.rebuild()
    assert channel.store.position().epoch == other.epoch
    assert channel.rows(SEATS) == [(1,), (2,)]
    channel.applier = Applier(channel.new_store(), other, channel.source)
    seat(3)
    channel.drain()
    assert channel.verify().equal


def test_a_log_that_stands_still_is_given_up_by_name(channel, monkeypatch):
    monkeypatch.setattr(rebuilding, "STILL_S", 0.0)
    seat(1)
    with pytest.raises(Timeout, match="levada run"):
        channel.rebuild(pump=lambda: None)
    assert channel.store.position() is None
    assert shadows(channel) == []


def test_a_second_rebuild_at_once_is_refused_by_name(channel, monkeypatch):
    seat(1)
    refused = []

    def again():
        with pytest.raises(AlreadyRunning, match="being rebuilt already") as caught:
            channel.rebuild()
        refused.append(str(caught.value))

    at_point(monkeypatch, "rebuild.in_load", again)
    channel.rebuild()
    assert len(refused) == 1
    channel.rebuild()


@pytest.mark.parametrize("point", [*WHEN, "rebuild.before_swap"])
def test_what_a_crash_leaves_behind_goes_with_the_next_rebuild(channel, monkeypatch, point):
    """Here the crash is an exception and the cleaning is prevented; tests/crash kills for real."""
    seat(1)
    channel.drain()
    seat(2)

    def crash():
        monkeypatch.setattr(rebuilding.DuckDBStore, "drop_shadows", lambda self: None)
        raise KeyboardInterrupt

    at_point(monkeypatch, point, crash)
    if point == "rebuild.before_swap":
        monkeypatch.setattr("levada.stores.duckdb.store.faults.point", rebuilding.faults.point)
    with pytest.raises(KeyboardInterrupt):
        channel.rebuild()
    monkeypatch.undo()
    assert channel.rows(SEATS) == [(1,)]
    channel.rebuild()
    assert shadows(channel) == []
    assert channel.rows(SEATS) == [(1,), (2,)]


@pytest.mark.parametrize("method", ["load_shadow", "replay_shadows", "swap"])
def test_a_full_disk_loses_nothing(channel, monkeypatch, method):
    seat(1)
    channel.drain()
    seat(2)

    def full(self, *args, **options):
        raise StoreFull("No space is left")

    def change():
        seat(3)
        channel.relay_all()

    at_point(monkeypatch, "rebuild.after_load", change)
    monkeypatch.setattr(rebuilding.DuckDBStore, method, full)
    with pytest.raises(StoreFull):
        channel.rebuild()
    monkeypatch.undo()
    assert channel.rows(SEATS) == [(1,)]
    assert shadows(channel) == []
    channel.drain()
    assert channel.verify().equal


def test_progress_tells_the_rows_of_each_table(channel):
    Seat.objects.bulk_create(Seat(row="A", number=n) for n in range(5))
    seen = []
    channel.rebuild(["shop.Seat"], progress=lambda *args: seen.append(args))
    assert seen == [("shop.Seat", 0, 5), ("shop.Seat", 5, 5)]


# Everything at once.


class Writers:
    """Threads that write at random until the block ends."""

    def __init__(self, count):
        self.stop = threading.Event()
        self.failed = []
        self.written = 0
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        assert not self.failed, self.failed

    def _run(self, number):
        dice = random.Random(number)
        try:
            while not self.stop.is_set():
                with transaction.atomic():
                    self._write(dice, number)
                self.written += 1
        except Exception as error:
            self.failed.append(error)
        finally:
            connections.close_all()

    def _write(self, dice, number):
        act = dice.random()
        if act < 0.4:
            customer = Customer.objects.create(name=f"{number} {act}")
            order = Order.objects.create(customer=customer, total=dice.randrange(10_000))
            OrderLine.objects.bulk_create(
                OrderLine(order=order, sku=str(n), price=n) for n in range(dice.randrange(5))
            )
        elif act < 0.7:
            Order.objects.filter(pk__endswith=dice.randrange(10)).update(country="ES", total=act)
        elif act < 0.8:
            Customer.objects.filter(name__startswith=f"{number} ").first() and (
                Customer.objects.filter(name__startswith=f"{number} ").first().delete()
            )
        else:
            Seat.objects.update_or_create(
                row=str(number), number=dice.randrange(20), defaults={"taken": act < 0.9}
            )
        if dice.random() < 0.1:
            transaction.set_rollback(True)


@contextmanager
def running(part):
    stop, failed = threading.Event(), []

    def run():
        try:
            part.run(stop)
        except BaseException as error:
            failed.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert not failed, failed


def test_rebuild_and_verify_again_and_again_while_many_write(channel):
    """Readers all the while: each sees both ends of every order it sees, and no table is gone."""
    torn, reading = [], threading.Event()

    def read():
        cursor = channel.root.cursor()
        while not reading.is_set():
            found = cursor.execute(
                "SELECT count(*) FROM shop_order WHERE customer_id NOT IN "
                "(SELECT id FROM shop_customer)"
            ).fetchall()
            if found != [(0,)]:
                torn.append(found)

    with running(channel.relay), running(channel.applier), Writers(2) as writers:
        wait_until(lambda: channel.applier.position is not None)
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for round_ in range(4):
                written = writers.written
                channel.rebuild(["shop.Order"] if round_ % 2 else None, pump=lambda: None)
                found = channel.verify()
                assert found.equal, found.to_json()
                wait_until(lambda before=written: writers.written > before)
        finally:
            reading.set()
            reader.join(60)
    assert not torn
    channel.drain()
    found = channel.verify()
    assert found.equal, found.to_json()
    assert sum(table.source_rows for table in found.tables) > 0
