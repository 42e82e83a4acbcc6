"""Who acted travels with each change made inside a context, and costs nothing outside."""

import asyncio
import threading

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction

from levada.capture import context, current_context
from levada.outbox.publishing import publish
from tests.shop.models import Product

from .captured import capturing

pytestmark = pytest.mark.django_db(transaction=True)


def contexts(changes):
    return [change.context for change in changes]


def test_a_change_carries_the_surrounding_context():
    with capturing() as changes:
        Product.objects.create(name="before")
        with context(actor="bel", request_id="r-1"):
            Product.objects.create(name="inside")
        Product.objects.create(name="after")

    assert contexts(changes) == [None, {"actor": "bel", "request_id": "r-1"}, None]


def test_an_inner_context_adds_to_the_outer_one():
    with capturing() as changes, transaction.atomic(), context(request_id="r-1"):
        Product.objects.create(name="outer")
        with context(actor="bel"):
            Product.objects.create(name="inner")
        Product.objects.create(name="outer again")

    assert contexts(changes) == [
        {"request_id": "r-1"},
        {"request_id": "r-1", "actor": "bel"},
        {"request_id": "r-1"},
    ]


def test_a_context_that_ends_inside_a_transaction_ends_there():
    with capturing() as changes, transaction.atomic():
        with context(actor="bel"):
            Product.objects.create(name="inside")
        Product.objects.create(name="after")

    assert contexts(changes) == [{"actor": "bel"}, None]


def test_a_rollback_to_a_savepoint_keeps_the_context():
    """set_config() inside a savepoint is undone with it."""
    with capturing() as changes, transaction.atomic(), context(actor="bel"):
        with transaction.atomic():
            Product.objects.create(name="undone")
            transaction.set_rollback(True)
        Product.objects.create(name="kept")

    assert contexts(changes) == [{"actor": "bel"}]


def test_a_rolled_back_end_of_a_context_is_ended_again():
    with capturing() as changes, transaction.atomic():
        with context(actor="bel"):
            Product.objects.create(name="inside")
        with transaction.atomic():
            Product.objects.create(name="undone")
            transaction.set_rollback(True)
        Product.objects.create(name="after")

    assert contexts(changes) == [{"actor": "bel"}, None]


def test_each_transaction_gets_the_context_anew():
    with capturing() as changes, context(actor="bel"):
        for _ in range(2):
            with transaction.atomic():
                Product.objects.create(name="a")
        Product.objects.update(name="b")

    assert contexts(changes) == [{"actor": "bel"}] * 4


def test_a_message_carries_the_context_and_the_number_of_its_transaction():
    with capturing() as changes, transaction.atomic(), context(actor="bel"):
        Product.objects.create(name="a")
        publish("orders.paid", {"order": 1})

    assert [change.op for change in changes] == ["c", "m"]
    assert contexts(changes) == [{"actor": "bel"}] * 2
    assert len({change.transaction for change in changes} - {None}) == 1


def test_any_text_is_an_actor():
    actor = 'O\'Hara "ü" 😀 \\ %s {0}'
    with capturing() as changes, context(actor=actor):
        Product.objects.create(name="a")

    assert contexts(changes) == [{"actor": actor}]


def test_a_context_follows_an_async_task_into_its_thread():
    def create():
        Product.objects.create(name="async")
        connection.close()

    async def view():
        with context(actor="bel"):
            await sync_to_async(create)()

    with capturing() as changes:
        asyncio.run(view())

    assert contexts(changes) == [{"actor": "bel"}]


def test_a_context_stays_in_its_thread():
    def create():
        Product.objects.create(name="elsewhere")
        connection.close()

    with capturing() as changes, context(actor="bel"):
        thread = threading.Thread(target=create)
        thread.start()
        thread.join()

    assert contexts(changes) == [None]
    assert current_context() is None


def test_no_statement_is_sent_without_a_context(django_assert_num_queries):
    with django_assert_num_queries(1):
        Product.objects.create(name="a")


@pytest.mark.postgresql
def test_a_context_costs_one_statement_a_transaction_that_writes(django_assert_num_queries):
    with context(actor="bel"):
        with transaction.atomic(), django_assert_num_queries(1):
            list(Product.objects.all())
        with transaction.atomic(), django_assert_num_queries(3):
            Product.objects.create(name="a")
            Product.objects.create(name="b")


@pytest.mark.postgresql
def test_any_client_may_name_an_actor():
    with capturing() as changes, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("""SET LOCAL levada.context = '{"actor": "dba"}'""")
        cursor.execute("INSERT INTO shop_product (name, price) VALUES ('a', 1)")

    assert contexts(changes) == [{"actor": "dba"}]
