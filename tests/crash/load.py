"""
A process that writes: random transactions on the shop, some of them rolled back.

    python -m tests.crash.load SEED OPERATIONS

The same seed on the same data does the same. Fails unless most of them commit.
"""

from __future__ import annotations

import random
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import django

EPOCH_AT = datetime(2026, 1, 1, tzinfo=UTC)


class RolledBack(Exception):
    """Raised inside a transaction on purpose."""


def main(seed: int, operations: int) -> None:
    """Run `operations` transactions, about one in six of which is rolled back."""
    from django.db import IntegrityError, OperationalError, transaction

    choose = random.Random(seed)
    committed = 0
    for _ in range(operations):
        try:
            with transaction.atomic():
                for _ in range(choose.randint(1, 4)):
                    choose.choice(OPERATIONS)(choose)
                roll_back_sometimes(choose)
            committed += 1
        except (RolledBack, IntegrityError, OperationalError):
            # Two loads may also get into each other's way; PostgreSQL then picks one to roll back.
            continue
    if committed < operations / 2:
        raise SystemExit(f"only {committed} of {operations} transactions were committed")


def roll_back_sometimes(choose: random.Random) -> None:
    if choose.random() < 1 / 6:
        raise RolledBack


def create_order(choose: random.Random) -> None:
    from tests.shop.models import Customer, Order, OrderLine, Tag

    customer = Customer.objects.order_by("?").first() or Customer.objects.create(name="Ana")
    order = Order.objects.create(
        customer=customer,
        number=uuid.UUID(int=choose.getrandbits(128)),
        total=_money(choose),
        placed_at=_moment(choose),
    )
    order.tags.set([Tag.objects.get_or_create(name=f"tag {choose.randint(0, 5)}")[0]])
    OrderLine.objects.bulk_create(
        OrderLine(order=order, sku=f"sku-{choose.randint(0, 99)}", price=_money(choose))
        for _ in range(choose.randint(0, 12))
    )


def create_customers(choose: random.Random) -> None:
    from tests.shop.models import Customer

    Customer.objects.bulk_create(
        Customer(name=f"Zé {choose.random()}", password="secret", created_at=_moment(choose))
        for _ in range(choose.randint(1, 30))
    )


def reprice(choose: random.Random) -> None:
    from django.db.models import F

    from tests.shop.models import OrderLine

    OrderLine.objects.filter(sku=f"sku-{choose.randint(0, 99)}").update(price=F("price") + 1)


def move_orders(choose: random.Random) -> None:
    from tests.shop.models import Order

    country = choose.choice(["PT", "ES", "DE", "US"])
    Order.objects.filter(pk__in=list(_some_keys(Order, choose, 20))).update(country=country)


def delete_customers(choose: random.Random) -> None:
    from tests.shop.models import Customer

    Customer.objects.filter(pk__in=list(_some_keys(Customer, choose, 3))).delete()


def write_by_sql(choose: random.Random) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO shop_product (name, price) VALUES (%s, %s)",
            [f"Produto {choose.random()}", _money(choose)],
        )
        cursor.execute(
            "DELETE FROM shop_product WHERE name LIKE %s AND id %% 7 = %s",
            ["Produto%", choose.randint(0, 6)],
        )


def book(choose: random.Random) -> None:
    from tests.shop.models import Book

    made = Book.objects.create(name="Os Lusíadas", isbn=_isbn(choose), price=_money(choose))
    if choose.random() < 0.5:
        made.pages = choose.randint(1, 900)
        made.save()


def take_seat(choose: random.Random) -> None:
    from tests.shop.models import Seat

    Seat.objects.update_or_create(
        row=choose.choice("ABC"),
        number=choose.randint(1, 9),
        defaults={"taken": choose.random() < 0.5},
    )


OPERATIONS: list[Callable[[random.Random], None]] = [
    create_order,
    create_order,
    create_customers,
    reprice,
    move_orders,
    delete_customers,
    write_by_sql,
    book,
    take_seat,
]


def _some_keys(model, choose: random.Random, most: int):
    keys = list(model.objects.order_by("pk").values_list("pk", flat=True))
    return choose.sample(keys, min(len(keys), choose.randint(0, most)))


def _isbn(choose: random.Random) -> str:
    return str(choose.randint(978_000_000_000_0, 979_999_999_999_9))


def _money(choose: random.Random) -> Decimal:
    return Decimal(choose.randint(0, 10_000_00)) / 100


def _moment(choose: random.Random) -> datetime:
    return EPOCH_AT + timedelta(microseconds=choose.randint(0, 10**13))


if __name__ == "__main__":
    django.setup()
    main(int(sys.argv[1]), int(sys.argv[2]))
