"""From a committed change to the replica, by real triggers, relay and log."""

import pytest
from django.db import transaction

from tests.shop.models import Customer, Order, OrderLine, Seat, Tag

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
