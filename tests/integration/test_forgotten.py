"""A forgotten row's records stay in the log without their images: nobody may stumble over them."""

import pytest
from django.test import override_settings

from levada.changes import CHANGES, Position
from levada.log.embedded import EmbeddedLog
from levada.log.memory import MemoryLog
from levada.models import DeadLetter
from tests.settings import LEVADA
from tests.shop.models import Customer, Seat

from .channel import Channel

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["memory", "embedded"])
def channel(request, tmp_path):
    log = MemoryLog() if request.param == "memory" else EmbeddedLog(tmp_path / "log.sqlite3")
    channel = Channel(tmp_path / "store.duckdb", log)
    yield channel
    channel.close()
    log.close()


def write_and_forget(channel):
    """Write, update and delete one row of each kind of key, relay that, and forget the rows."""
    gone = Customer.objects.create(name="Ana")
    gone.name = "Ana B."
    gone.save()
    Customer.objects.create(name="Rui")
    seat = Seat.objects.create(row="A", number=1)
    seat.delete()
    Customer.objects.filter(name="Ana B.").delete()
    channel.relay_all()
    keys = {(each.label, each.key) for each in records(channel) if each.op == "d"}
    assert len(keys) == 2
    assert sum(channel.log.forget(*key) for key in keys) == 5
    assert {(each.before, each.after) for each in records(channel) if each[2:5:2] in keys} == {
        (None, None)
    }


def records(channel):
    return list(channel.log.read(Position(channel.log.epoch, CHANGES, 0), 100))


def assert_equal_without_letters(channel):
    assert channel.verify().equal
    assert channel.rows("SELECT name FROM shop_customer") == [("Rui",)]
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("batch_rows", [1, 100])
def test_a_store_applies_the_records_of_a_forgotten_row(channel, batch_rows):
    """In one batch the deletion alone counts; one by one each record is taken for itself."""
    channel.drain()
    write_and_forget(channel)
    with override_settings(LEVADA={**LEVADA, "BATCH_ROWS": batch_rows, "ON_POISON": "halt"}):
        channel.drain()
    assert_equal_without_letters(channel)


def test_a_rebuild_replays_the_records_of_a_forgotten_row(channel):
    channel.drain()
    written = []

    def write_once(*progress):
        if not written:
            written.append(progress)
            write_and_forget(channel)

    channel.rebuild(progress=write_once)
    assert written
    channel.drain()
    assert_equal_without_letters(channel)


def test_a_first_rebuild_after_forgetting_is_equal(channel):
    write_and_forget(channel)
    channel.drain()
    assert_equal_without_letters(channel)
