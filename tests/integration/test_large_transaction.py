"""A transaction that is larger than a batch goes through in parts and shows only as a whole."""

import json
import threading
from contextlib import contextmanager, suppress

import duckdb
import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction

import levada
from levada import faults
from levada.apply import rebuilding, subscriptions
from levada.apply.applier import Applier
from levada.apply.handlers import HandlerRunner
from levada.changes import CHANGES
from levada.errors import PoisonRecord, PositionMoved, StoreBusy
from levada.outbox.models import DeadLetter, Outbox
from tests.shop.models import Customer, Everything, Seat

from .channel import Channel

pytestmark = pytest.mark.django_db(transaction=True)

BATCH_ROWS = 50
ROWS = 1_000
COUNT = "SELECT count(*) FROM shop_seat"
TAKEN = "SELECT count(*) FROM shop_seat WHERE taken"


@pytest.fixture(autouse=True)
def small_batches(settings):
    settings.LEVADA = django_settings.LEVADA | {"BATCH_ROWS": BATCH_ROWS}


@pytest.fixture
def channel(tmp_path):
    channel = Channel(tmp_path / "store.duckdb")
    yield channel
    channel.close()


@pytest.fixture
def reads(channel, monkeypatch):
    """Return how many records each read of the log gave, from now on."""
    sizes, read = [], channel.log.read

    def counted(*args, **options):
        batch = read(*args, **options)
        sizes.append(len(batch))
        return batch

    monkeypatch.setattr(channel.log, "read", counted)
    return sizes


@contextmanager
def at_point(name, act, monkeypatch):
    """Call `act` at each passing of the fault point `name`; gives the list of passings."""
    passings = []

    def point(reached):
        if reached == name:
            passings.append(reached)
            act(len(passings))

    with monkeypatch.context() as patch:
        patch.setattr(faults, "point", point)
        yield passings


def seats(count=ROWS, first=0):
    return [Seat(row="A", number=number) for number in range(first, first + count)]


def take_all_seats():
    """One statement, and so one transaction, of as many rows as there are seats."""
    Seat.objects.update(taken=True)


def test_nobody_sees_a_part_of_it_before_the_last(channel, reads, monkeypatch):
    Seat.objects.bulk_create(seats())
    channel.drain()
    start = channel.store.position()
    take_all_seats()
    seen = set()

    def look(passing):
        seen.add((channel.rows(TAKEN)[0][0], channel.new_store().position()))

    with at_point("apply.between_parts", look, monkeypatch) as passings:
        channel.drain()
    assert len(passings) == ROWS // BATCH_ROWS - 1
    assert seen == {(0, start)}
    assert max(reads) == BATCH_ROWS
    assert channel.rows(TAKEN) == [(ROWS,)]
    assert channel.verify().equal


def test_rows_written_again_and_again_in_it_end_as_the_source_has_them(channel):
    Seat.objects.bulk_create(seats())
    channel.drain()
    with transaction.atomic():
        take_all_seats()
        Seat.objects.filter(number__lt=300).delete()
        Seat.objects.bulk_create(seats(200))
        with connection.cursor() as cursor:
            cursor.execute("UPDATE shop_seat SET number = number + 5000 WHERE number % 3 = 1")
        Seat.objects.filter(number__gt=5500).update(taken=False)
    channel.drain()
    source = sorted(Seat.objects.values_list("row", "number", "taken"))
    assert channel.rows("SELECT * FROM shop_seat ORDER BY ALL") == source
    assert channel.verify().equal


@pytest.mark.postgresql
def test_a_truncate_in_the_middle_of_it_empties_what_came_before(channel):
    Seat.objects.bulk_create(seats())
    channel.drain()
    with transaction.atomic(), connection.cursor() as cursor:
        take_all_seats()
        cursor.execute("TRUNCATE shop_seat")
        Seat.objects.bulk_create(seats(120))
    channel.drain()
    assert channel.rows(COUNT) == [(120,)]
    assert channel.verify().equal


def test_a_failure_in_the_middle_of_it_leaves_the_store_as_it_was(channel, monkeypatch):
    channel.drain()
    start = channel.store.position()
    Seat.objects.bulk_create(seats())
    channel.relay_all()

    def fail(passing):
        if passing == 3:
            raise OSError("the disk went away")

    with (
        at_point("apply.between_parts", fail, monkeypatch),
        pytest.raises(OSError, match="disk"),
    ):
        channel.applier.step()
    assert channel.rows(COUNT) == [(0,)]
    assert channel.store.position() == start
    channel.drain()
    assert channel.rows(COUNT) == [(ROWS,)]


def test_a_stop_in_the_middle_of_it_ends_the_applier_at_once(channel, monkeypatch):
    channel.drain()
    start = channel.store.position()
    Seat.objects.bulk_create(seats())
    channel.relay_all()
    stop = threading.Event()
    with at_point("apply.between_parts", lambda _: stop.set(), monkeypatch) as passings:
        channel.applier.run(stop)
    assert len(passings) == 1
    assert channel.rows(COUNT) == [(0,)]
    assert channel.store.position() == start
    Applier(channel.new_store(), channel.log, channel.source).step()
    assert channel.rows(COUNT) == [(ROWS,)]
    assert channel.verify().equal


def test_a_second_applier_neither_writes_into_it_nor_after_it(channel, monkeypatch):
    channel.drain()
    second = Applier(channel.new_store(), channel.log, channel.source)
    assert second.step() == 0
    Seat.objects.bulk_create(seats())
    channel.relay_all()

    def step_too(passing):
        with pytest.raises(StoreBusy):
            second.step()

    with at_point("apply.between_parts", step_too, monkeypatch) as passings:
        channel.applier.step()
    assert passings
    with pytest.raises(PositionMoved, match="another applier"):
        second.step()
    assert channel.rows(COUNT) == [(ROWS,)]


def poison_captured(*keys):
    """Turn a value of captured rows into one that its type does not have."""
    for key in keys:
        row = Outbox.objects.get(label="shop.Everything", key=f"[{key}]")
        image = json.loads(row.after)
        assert image["small"] is None
        row.after = json.dumps(image | {"small": 70_000})
        row.save()


POISON = (7, 133, 134, 490)


def test_poison_in_several_parts_of_it_costs_one_more_beginning(channel, monkeypatch):
    channel.drain()
    Everything.objects.bulk_create(Everything(pk=pk) for pk in range(1, 501))
    poison_captured(*POISON)
    with at_point("apply.before_transaction", lambda _: None, monkeypatch) as begun:
        channel.drain()
    assert len(begun) == 2
    letters = DeadLetter.objects.order_by("offset")
    assert [letter.key for letter in letters] == [f"[{key}]" for key in POISON]
    assert channel.rows("SELECT count(*) FROM shop_everything") == [(496,)]
    found = [each.key["id"] for table in channel.verify().tables for each in table.differences]
    assert sorted(map(int, found)) == list(POISON)


def test_poison_in_a_later_part_of_it_halts_by_setting(channel, settings):
    settings.LEVADA = settings.LEVADA | {"ON_POISON": "halt"}
    channel.drain()
    Everything.objects.bulk_create(Everything(pk=pk) for pk in range(1, 501))
    poison_captured(490)
    channel.relay_all()
    for _ in range(2):
        with pytest.raises(PoisonRecord, match="small"):
            channel.applier.step()
    assert not DeadLetter.objects.exists()
    assert channel.rows("SELECT count(*) FROM shop_everything") == [(0,)]


@pytest.mark.parametrize("count", [1, 3, ROWS], ids=["one", "few", "large"])
def test_what_fails_for_no_visible_reason_is_narrowed_down_to_its_record(channel, settings, count):
    """A person gave the replica's table a rule of its own, which one row does not keep."""
    settings.LEVADA = settings.LEVADA | {"RETRIES": 2}
    channel.drain()
    channel.rows(
        'CREATE OR REPLACE TABLE shop_seat ("row" VARCHAR, number INTEGER CHECK (number <> 713), '
        "taken BOOLEAN)"
    )
    Seat.objects.bulk_create(seats(count, first=714 - count))
    channel.relay_all()
    for _ in range(20):
        with suppress(duckdb.ConstraintException):
            channel.applier.step()
    (letter,) = DeadLetter.objects.all()
    assert letter.key == '["A",713]'
    assert "CHECK" in letter.reason
    assert channel.rows(COUNT) == [(count - 1,)]
    assert channel.store.position() == channel.log.end(CHANGES)


def test_another_shape_in_a_later_part_of_it_leads_to_a_rebuild(channel):
    Customer.objects.create(name="Ana")
    channel.drain()
    channel.rows("UPDATE shop_customer SET name = 'not rebuilt'")
    Seat.objects.bulk_create(seats())
    last = Outbox.objects.latest("id")
    last.fingerprint = "another"
    last.save()
    channel.drain()
    assert channel.rows(COUNT) == [(ROWS,)]
    assert channel.rows("SELECT name FROM shop_customer") == [("not rebuilt",)]


# Rebuild and verify, while it comes through.


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "only_relayed"])
@pytest.mark.parametrize("point", ["rebuild.before_snapshot", "rebuild.after_load"])
def test_a_rebuild_takes_it_in_parts(channel, reads, monkeypatch, point, applied):
    Seat.objects.bulk_create(seats())
    Customer.objects.create(name="Ana")
    channel.drain()

    def change(passing):
        with transaction.atomic():
            take_all_seats()
            Customer.objects.bulk_create(Customer(name=f"Ana {n}") for n in range(200))
        channel.relay_all()
        if applied:
            channel.drain()

    with at_point(point, change, monkeypatch) as passings:
        channel.rebuild(["shop.Seat"])
    assert passings == [point]
    assert max(reads) == BATCH_ROWS
    assert channel.rows(TAKEN) == [(ROWS,)]
    channel.drain()
    assert channel.verify().equal


@pytest.mark.parametrize("ahead", ["store", "shadows"])
def test_the_swap_brings_the_tables_together_in_parts(channel, reads, monkeypatch, ahead):
    Seat.objects.bulk_create(seats())
    channel.drain()
    replay, swap = rebuilding.Rebuild._replay, rebuilding.Rebuild._swap

    def change():
        with transaction.atomic():
            take_all_seats()
            Customer.objects.bulk_create(Customer(name=f"Ana {n}") for n in range(200))
        channel.relay_all()

    def change_then_replay(self, specs, at, shown):
        change()
        return replay(self, specs, at, shown)

    def change_then_swap(self, specs, at):
        change()
        channel.drain()
        return swap(self, specs, at)

    if ahead == "shadows":
        monkeypatch.setattr(rebuilding.Rebuild, "_replay", change_then_replay)
    else:
        monkeypatch.setattr(rebuilding.Rebuild, "_swap", change_then_swap)
    end = channel.rebuild(["shop.Seat"])
    assert end == channel.log.end(CHANGES)
    assert max(reads) == BATCH_ROWS
    assert channel.rows(TAKEN) == [(ROWS,)]
    assert channel.rows("SELECT count(*) FROM shop_customer") == [(200,)]
    assert channel.verify().equal


def test_a_swap_waits_while_the_applier_is_inside_it(channel, monkeypatch):
    Seat.objects.bulk_create(seats())
    channel.drain()
    take_all_seats()
    channel.relay_all()
    waited, done = threading.Event(), []

    def note(seconds):
        waited.set()

    def rebuild():
        done.append(rebuilding.rebuild(
            "analytics", ["shop.Customer"], store=channel.new_store(), log=channel.log,
            source=channel.source,
        ))  # fmt: skip
        connection.close()

    other = threading.Thread(target=rebuild)

    def let_it_wait(passing):
        if passing == 1:
            monkeypatch.setattr(rebuilding.time, "sleep", note)
            other.start()
            assert waited.wait(60)

    with at_point("apply.between_parts", let_it_wait, monkeypatch):
        channel.applier.step()
    other.join(60)
    assert done == [channel.store.position()]
    assert channel.rows(TAKEN) == [(ROWS,)]


@contextmanager
def changed_after_the_snapshot(channel, change, monkeypatch):
    """Have `change` committed and applied when verify has opened its snapshot of the source."""
    snapshot = channel.source.snapshot

    @contextmanager
    def and_then():
        with snapshot() as found:
            change()
            channel.drain()
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(channel.source, "snapshot", and_then)
        yield


def test_verify_lays_it_over_an_older_snapshot_in_parts(channel, reads, monkeypatch):
    Seat.objects.bulk_create(seats())
    Customer.objects.create(name="Ana")
    channel.drain()

    def change():
        with transaction.atomic():
            take_all_seats()
            Seat.objects.filter(number__lt=300).delete()
            Seat.objects.bulk_create(seats(100))
            Customer.objects.create(name="Rui")

    with changed_after_the_snapshot(channel, change, monkeypatch):
        found = channel.verify()
    assert found.equal, found.to_json()
    assert max(reads) == BATCH_ROWS
    rows = {table.label: table.source_rows for table in found.tables}
    assert (rows["shop.Seat"], rows["shop.Customer"]) == (ROWS - 200, 2)


def test_verify_names_the_rows_that_differ_from_it(channel, monkeypatch):
    Seat.objects.bulk_create(seats())
    channel.drain()

    def change():
        take_all_seats()
        channel.drain()
        channel.rows("UPDATE shop_seat SET taken = false WHERE number IN (3, 777)")
        channel.rows("DELETE FROM shop_seat WHERE number = 500")

    with changed_after_the_snapshot(channel, change, monkeypatch):
        found = channel.verify()
    differences = [each for table in found.tables for each in table.differences]
    assert sorted((each.kind, each.key["number"]) for each in differences) == [
        ("changed", "3"),
        ("changed", "777"),
        ("missing", "500"),
    ]


@pytest.mark.sqlite
def test_verify_names_the_rows_of_it_that_no_store_can_take(channel, monkeypatch):
    """One of them was written again in a later part, and then it was no poison."""
    channel.drain()

    def change():
        with transaction.atomic():
            Everything.objects.bulk_create(Everything(pk=pk) for pk in range(1, 501))
            with connection.cursor() as cursor:
                cursor.execute("UPDATE shop_everything SET small = 'many' WHERE id IN (5, 300)")
            Everything.objects.update(flag=False)
            with connection.cursor() as cursor:
                cursor.execute("UPDATE shop_everything SET small = 4 WHERE id = 5")

    with changed_after_the_snapshot(channel, change, monkeypatch):
        found = channel.verify()
    differences = [each for table in found.tables for each in table.differences]
    assert ("unreadable", {"id": "300"}) in [(each.kind, each.key) for each in differences]
    assert {each.key["id"] for each in differences} == {"300"}


@pytest.mark.postgresql
def test_verify_forgets_what_a_truncate_in_it_took_away(channel, monkeypatch):
    Seat.objects.bulk_create(seats())
    channel.drain()

    def change():
        with transaction.atomic(), connection.cursor() as cursor:
            take_all_seats()
            cursor.execute("TRUNCATE shop_seat")
            Seat.objects.bulk_create(seats(120))

    with changed_after_the_snapshot(channel, change, monkeypatch):
        found = channel.verify()
    assert found.equal, found.to_json()


# Handlers.


@pytest.fixture
def group():
    """The name of a group whose handlers are forgotten after the test."""
    yield "seats"
    for each in subscriptions.registry.groups().get("seats", ()):
        subscriptions.registry.remove(each.handler)


def test_a_batch_handler_gets_it_in_lists_and_each_row_once(channel, reads, group):
    seen = []

    @levada.subscribe("changes:shop.Seat", group=group, batch=True, batch_rows=30)
    def note(changes):
        seen.append([change.key[1] for change in changes])

    runner = HandlerRunner(group, channel.log)
    Seat.objects.bulk_create(seats())
    channel.relay_all()
    while runner.step():
        pass
    assert [number for numbers in seen for number in numbers] == list(range(ROWS))
    assert max(map(len, seen)) == 30
    assert max(reads) == BATCH_ROWS
