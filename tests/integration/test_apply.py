"""From a committed change to the replica, by real triggers, relay and log."""

import logging
import re
import threading
from contextlib import contextmanager

import duckdb
import pytest
from django.conf import settings as django_settings
from django.db import connection, connections, models, transaction

from levada.apply import drop, retry
from levada.apply.applier import Applier
from levada.apply.lag import Lag
from levada.capture import install
from levada.changes import CHANGES
from levada.errors import (
    ConfigurationError,
    ForeignPosition,
    PoisonRecord,
    PositionMoved,
    SchemaDrift,
    StoreBusy,
    Timeout,
)
from levada.log.memory import MemoryLog
from levada.outbox.models import DeadLetter, Outbox
from tests.conditions import wait_until
from tests.shop.models import Customer, Everything, Order, OrderLine, Product, Seat, Tag

from .channel import Channel

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def channel(tmp_path):
    channel = Channel(tmp_path / "store.duckdb")
    yield channel
    channel.close()


def test_rows_there_before_and_changes_after_reach_the_store(channel):
    ana = Customer.objects.create(name="Ana")
    channel.drain()
    Customer.objects.create(name="Rui")
    Customer.objects.filter(pk=ana.pk).update(country="PT")
    channel.drain()
    assert channel.rows("SELECT name, country FROM shop_customer ORDER BY 1") == [
        ("Ana", "PT"),
        ("Rui", ""),
    ]


def test_an_excluded_column_is_not_in_the_store(channel):
    Customer.objects.create(name="Ana", password="secret")
    channel.drain()
    columns = channel.rows(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = 'shop_customer'"
    )
    assert ("password",) not in columns
    assert ("email",) in columns


def test_through_tables_cascades_and_composite_keys_arrive(channel):
    channel.drain()
    with transaction.atomic():
        ana = Customer.objects.create(name="Ana")
        order = Order.objects.create(customer=ana)
        order.tags.add(Tag.objects.create(name="new"))
        OrderLine.objects.create(order=order, sku="a")
        Seat.objects.create(row="A", number=1)
    channel.drain()
    for table in ("shop_order", "shop_order_tags", "shop_orderline", "shop_seat"):
        assert channel.rows(f"SELECT count(*) FROM {table}") == [(1,)], table
    ana.delete()
    channel.drain()
    for table in ("shop_order", "shop_order_tags", "shop_orderline"):
        assert channel.rows(f"SELECT count(*) FROM {table}") == [(0,)], table


# Poison.

EVERYTHING = "shop.Everything"


def poison_the_outbox(pk, column, value):
    """Turn the value of one captured image into one that its type does not have."""
    row = Outbox.objects.filter(label=EVERYTHING, key=f"[{pk}]").latest("id")
    row.after, count = re.subn(rf'("{column}" ?: ?)null', rf"\g<1>{value}", row.after)
    assert count == 1
    row.save()


def test_poison_becomes_one_letter_and_the_rest_goes_on(channel):
    channel.drain()
    Everything.objects.bulk_create(Everything(pk=pk) for pk in (1, 2, 3))
    poison_the_outbox(2, "small", "70000")
    channel.drain()
    assert channel.rows("SELECT id FROM shop_everything ORDER BY 1") == [(1,), (3,)]
    letter = DeadLetter.objects.get()
    assert (letter.consumer, letter.label, letter.key) == ("analytics", EVERYTHING, "[2]")
    assert "'small'" in letter.reason
    assert "70000" in letter.record
    assert letter.state == DeadLetter.State.WAITING
    (difference,) = (each for table in channel.verify().tables for each in table.differences)
    assert difference.key == {"id": "2"}


def test_a_letter_written_before_a_crash_is_not_written_twice(channel, monkeypatch):
    channel.drain()
    Everything.objects.create(pk=1)
    poison_the_outbox(1, "small", "70000")
    channel.relay_all()
    apply = channel.store.apply

    def crash_with_letters(batch, *, skip=(), **options):
        if skip:
            raise KeyboardInterrupt
        return apply(batch, **options)

    monkeypatch.setattr(channel.store, "apply", crash_with_letters)
    with pytest.raises(KeyboardInterrupt):
        channel.applier.step()
    assert DeadLetter.objects.count() == 1
    monkeypatch.undo()
    channel.drain()
    assert DeadLetter.objects.count() == 1
    assert channel.store.position() == channel.log.end(CHANGES)


def test_poison_halts_the_store_by_setting(channel, settings):
    settings.LEVADA = django_settings.LEVADA | {"ON_POISON": "halt"}
    channel.drain()
    Everything.objects.create(pk=1)
    poison_the_outbox(1, "small", "70000")
    channel.relay_all()
    for _ in range(2):
        with pytest.raises(PoisonRecord, match="small"):
            channel.applier.step()
    assert not DeadLetter.objects.exists()
    assert channel.rows("SELECT count(*) FROM shop_everything") == [(0,)]


@pytest.fixture
def letter(channel):
    """A waiting letter: its row is in the source, not in the store."""
    channel.drain()
    Everything.objects.create(pk=1, char="first")
    poison_the_outbox(1, "small", "70000")
    channel.drain()
    return DeadLetter.objects.get()


def decide(channel, letter, decide=retry, **options):
    decide(letter.pk, store=channel.new_store(), log=channel.log, source=channel.source, **options)
    letter.refresh_from_db()


def test_a_retried_letter_brings_the_row_as_it_is_now(channel, letter):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE shop_everything SET char = 'second' WHERE id = 1")
    Outbox.objects.all().delete()  # so that only the retry can bring it
    decide(channel, letter)
    assert letter.state == DeadLetter.State.RETRIED
    assert letter.decided_at is not None
    assert channel.rows("SELECT char FROM shop_everything") == [("second",)]
    assert channel.verify().equal


def test_a_retry_never_overwrites_what_is_newer(channel, letter, monkeypatch):
    """The row changes, and reaches the store, after the retry has read it."""
    snapshot = channel.source.snapshot

    @contextmanager
    def snapshot_then_change():
        with snapshot() as found:
            yield found
        Everything.objects.filter(pk=1).update(char="newer")
        channel.drain()

    monkeypatch.setattr(channel.source, "snapshot", snapshot_then_change)
    decide(channel, letter)
    monkeypatch.undo()
    assert letter.state == DeadLetter.State.RETRIED
    assert channel.rows("SELECT char FROM shop_everything") == [("newer",)]
    assert channel.verify().equal


def test_a_retry_of_a_row_that_is_gone_leaves_no_row(channel, letter):
    Everything.objects.filter(pk=1).delete()
    Outbox.objects.all().delete()
    channel.rows("INSERT INTO shop_everything (id, char) VALUES (1, 'stale')")
    decide(channel, letter)
    assert channel.rows("SELECT count(*) FROM shop_everything") == [(0,)]
    assert channel.verify().equal


@pytest.mark.sqlite
def test_a_row_that_is_poison_still_keeps_its_letter(channel, letter):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE shop_everything SET small = 'many' WHERE id = 1")
    Outbox.objects.all().delete()
    with pytest.raises(PoisonRecord, match="as it is now"):
        decide(channel, letter)
    letter.refresh_from_db()
    assert letter.state == DeadLetter.State.WAITING
    assert letter.tries == 2


def test_a_retry_without_a_keeper_gives_up_by_name(channel, letter):
    Customer.objects.create(name="Ana")
    with pytest.raises(Timeout, match="keeper"):
        decide(channel, letter, timeout_s=0.1)
    letter.refresh_from_db()
    assert letter.state == DeadLetter.State.WAITING


def test_a_dropped_letter_leaves_the_store_alone(channel, letter):
    drop(letter.pk)
    letter.refresh_from_db()
    assert letter.state == DeadLetter.State.DROPPED
    assert channel.rows("SELECT count(*) FROM shop_everything") == [(0,)]
    with pytest.raises(ConfigurationError, match="was dropped already"):
        retry(letter.pk)
    with pytest.raises(ConfigurationError, match="does not exist"):
        drop(letter.pk + 1)


@pytest.mark.sqlite
def test_a_row_that_no_load_can_take_becomes_a_letter_too(channel):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO shop_everything (id, small) VALUES (1, 'many'), (2, 3)")
        cursor.execute("INSERT INTO shop_everything (id, small) VALUES (3, 40000)")
        cursor.execute("INSERT INTO shop_everything (id, price) VALUES (4, 'cheap')")
    channel.drain()
    assert channel.rows("SELECT id, small FROM shop_everything") == [(2, 3)]
    assert sorted(DeadLetter.objects.values_list("label", "key")) == [
        (EVERYTHING, '["1"]'),
        (EVERYTHING, '["3"]'),
        (EVERYTHING, '["4"]'),
    ]
    channel.rebuild([EVERYTHING])
    assert DeadLetter.objects.count() == 3
    with connection.cursor() as cursor:
        cursor.execute("UPDATE shop_everything SET small = 4 WHERE id = 1")
    Outbox.objects.all().delete()
    decide(channel, DeadLetter.objects.get(key='["1"]'))
    assert (1, 4) in channel.rows("SELECT id, small FROM shop_everything")


@pytest.mark.sqlite
def test_a_row_that_no_load_can_take_halts_the_rebuild_by_setting(channel, settings):
    settings.LEVADA = django_settings.LEVADA | {"ON_POISON": "halt"}
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO shop_everything (id, small) VALUES (1, 'many')")
    with pytest.raises(PoisonRecord, match=r"shop\.Everything.*small.*source"):
        channel.rebuild()
    assert channel.store.position() is None
    assert not DeadLetter.objects.exists()


@pytest.mark.postgresql
def test_a_date_without_end_is_a_letter_from_the_log_and_from_a_snapshot(channel):
    """PostgreSQL's infinity, which neither Python nor the store's date column has."""
    Everything.objects.create(pk=1)
    Everything.objects.create(pk=2)
    channel.drain()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE shop_everything SET day = 'infinity' WHERE id = 2")
    channel.drain()
    assert [letter.key for letter in DeadLetter.objects.all()] == ["[2]"]
    found = [each for table in channel.verify().tables for each in table.differences]
    assert [(each.kind, each.key) for each in found] == [("unreadable", {"id": "2"})]
    channel.rebuild([EVERYTHING])
    assert channel.rows("SELECT id FROM shop_everything") == [(1,)]
    assert DeadLetter.objects.count() == 2


# Shapes.


@contextmanager
def another_column(model=Seat):
    """Give `model` one more column, as a migration would, and take it away again."""
    field = models.CharField(max_length=20, default="blue")
    field.set_attributes_from_name("colour")
    with connection.schema_editor() as editor:
        field.contribute_to_class(model, "colour")
        editor.add_field(model, field)
    install("default")
    try:
        yield field
    finally:
        with connection.schema_editor() as editor:
            editor.remove_field(model, field)
        model._meta.local_fields.remove(field)
        model._meta._expire_cache()
        install("default")


def test_a_new_column_leads_to_a_rebuild_of_its_table_alone(channel):
    Seat.objects.create(row="A", number=1)
    channel.drain()
    channel.rows("ALTER TABLE shop_customer ADD COLUMN mark INTEGER")
    with another_column():
        Seat.objects.create(row="A", number=2, colour="red")
        channel.drain()
        assert channel.rows("SELECT number, colour FROM shop_seat ORDER BY 1") == [
            (1, "blue"),
            (2, "red"),
        ]
        assert channel.verify().equal
    assert channel.rows("SELECT mark FROM shop_customer") == []


def test_a_new_column_is_noticed_without_a_change_of_a_row(channel):
    Seat.objects.create(row="A", number=1)
    channel.drain()
    with another_column():
        wait_until(
            lambda: (
                channel.applier.step() == 0
                and ("colour",)
                in channel.rows(
                    "SELECT column_name FROM duckdb_columns() WHERE table_name = 'shop_seat'"
                )
            )
        )
        assert channel.rows("SELECT number, colour FROM shop_seat") == [(1, "blue")]


def test_drift_halts_the_store_by_setting(channel, settings):
    settings.LEVADA = django_settings.LEVADA | {"ON_DRIFT": "halt"}
    channel.drain()
    with another_column():
        Seat.objects.create(row="A", number=2, colour="red")
        channel.relay_all()
        for _ in range(2):
            with pytest.raises(SchemaDrift, match="levada rebuild"):
                channel.applier.step()
        assert channel.rows("SELECT count(*) FROM shop_seat") == [(0,)]
        channel.rebuild(["shop.Seat"])
        channel.drain()
        assert channel.rows("SELECT colour FROM shop_seat") == [("red",)]


def test_a_table_named_later_is_filled_and_one_named_no_longer_is_dropped(channel, settings):
    named = django_settings.LEVADA["REPLICATE"]["analytics"]
    without = {label: named[label] for label in named if label != "shop.Seat"}
    Seat.objects.create(row="A", number=1)
    settings.LEVADA = django_settings.LEVADA | {"REPLICATE": {"analytics": without}}
    channel.drain()
    assert "shop.Seat" not in channel.store.specs()
    settings.LEVADA = settings.LEVADA | {"REPLICATE": {"analytics": named}}
    Applier(channel.new_store(), channel.log, channel.source).step()
    assert channel.rows("SELECT number FROM shop_seat") == [(1,)]
    settings.LEVADA = settings.LEVADA | {"REPLICATE": {"analytics": without}}
    Applier(channel.new_store(), channel.log, channel.source).step()
    assert "shop.Seat" not in channel.new_store().specs()
    with pytest.raises(duckdb.CatalogException):
        channel.rows("SELECT * FROM shop_seat")


def test_a_table_that_somebody_dropped_comes_back(channel):
    Seat.objects.create(row="A", number=1)
    channel.drain()
    channel.rows("DROP TABLE shop_seat")
    Seat.objects.create(row="A", number=2)
    channel.relay_all()
    with pytest.raises(duckdb.CatalogException):
        channel.applier.step()
    channel.applier.step()
    channel.drain()
    assert channel.rows("SELECT number FROM shop_seat ORDER BY 1") == [(1,), (2,)]


# Running.


@contextmanager
def running(part):
    """Run a part in a thread until the block ends; its error is raised then."""
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
        yield thread
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def test_a_running_applier_follows_the_log_and_tells_it_how_far(channel):
    with running(channel.relay), running(channel.applier):
        for number in range(20):
            Seat.objects.create(row="A", number=number)
        wait_until(lambda: seats(channel) == 20)
        assert channel.applier.error is None
    assert channel.log.committed("analytics", CHANGES) == channel.store.position()


def seats(channel):
    try:
        return channel.rows("SELECT count(*) FROM shop_seat")[0][0]
    except duckdb.CatalogException:
        return None


def test_a_running_applier_outlives_a_log_that_fails(channel, monkeypatch, caplog):
    read, failures = channel.log.read, [OSError("disk"), OSError("disk")]

    def fail_twice(*args, **options):
        if failures:
            raise failures.pop()
        return read(*args, **options)

    monkeypatch.setattr(channel.log, "read", fail_twice)
    Seat.objects.create(row="A", number=1)
    with caplog.at_level(logging.WARNING), running(channel.relay), running(channel.applier):
        wait_until(lambda: seats(channel) == 1)
        wait_until(lambda: not failures and channel.applier.error is None)
    assert "next try in" in caplog.text


def test_an_applier_whose_place_was_taken_stops(channel):
    channel.drain()
    other = Applier(channel.new_store(), channel.log, channel.source)
    other.step()
    Seat.objects.create(row="A", number=1)
    channel.relay_all()
    channel.applier.step()
    with pytest.raises(PositionMoved, match="another applier"), running(other) as thread:
        wait_until(lambda: not thread.is_alive())
    assert seats(channel) == 1


def test_an_applier_goes_on_after_a_rebuild_that_moved_its_position(channel):
    channel.drain()
    Seat.objects.create(row="A", number=1)
    channel.relay_all()
    channel.rebuild()
    assert channel.applier.position != channel.store.position()
    Seat.objects.create(row="A", number=2)
    channel.drain()
    assert seats(channel) == 2
    assert channel.verify().equal


def test_a_position_of_another_log_is_refused_by_name(channel):
    channel.drain()
    applier = Applier(channel.new_store(), MemoryLog(), channel.source)
    with pytest.raises(ForeignPosition):
        applier.step()


def test_a_failure_that_no_value_explains_is_narrowed_down_to_its_record(channel, monkeypatch):
    """A store that refuses one row for a reason of its own, whatever it is."""
    channel.drain()
    Seat.objects.bulk_create(Seat(row="A", number=n) for n in range(9))
    channel.relay_all()
    write = channel.store._write

    def refuse_seven(changes, table):
        if '["A",7]' in {key.replace(" ", "") for key in changes.last}:
            raise duckdb.InternalException("no sevens")
        write(changes, table)

    monkeypatch.setattr(channel.store, "_write", refuse_seven)
    for _ in range(100):
        try:
            channel.applier.step()
        except duckdb.InternalException:
            continue
        if channel.store.position() == channel.log.end(CHANGES):
            break
    assert seats(channel) == 8
    letter = DeadLetter.objects.get()
    assert letter.key.replace(" ", "") == '["A",7]'
    assert letter.reason == "no sevens"


def test_a_conflict_with_another_writer_is_tried_again(channel):
    channel.drain()
    Seat.objects.create(row="A", number=1)
    channel.drain()
    other = channel.root.cursor()
    other.begin()
    other.execute("DELETE FROM shop_seat")
    Seat.objects.filter(row="A").update(taken=True)
    channel.relay_all()
    with pytest.raises(StoreBusy):
        channel.applier.step()
    other.rollback()
    channel.drain()
    assert channel.rows("SELECT taken FROM shop_seat") == [(True,)]


def test_the_lag_counts_records_and_seconds(channel):
    assert channel.applier.lag() == Lag(None, 0.0)
    channel.drain()
    assert channel.applier.lag() == Lag(0, 0.0)
    Product.objects.create(name="a")
    Product.objects.create(name="b")
    channel.relay_all()
    lag = channel.applier.lag()
    assert lag.records == 2
    assert 0 <= lag.seconds < 3600
    channel.drain()
    assert channel.applier.lag() == Lag(0, 0.0)
