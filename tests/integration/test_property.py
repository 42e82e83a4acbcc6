"""
Random sequences of writes against the replica: after each drain both databases answer alike.

Hypothesis draws operations (ORM, raw SQL, cascades, nested transactions that
end either way), this file performs them on the source, and every so often
compares: `verify` must find nothing, and `values_list` of every replicated
model must be equal, compared in Python, so that a fault which verify shares
with the applier is seen as well.
"""

import datetime
import math
import os
import uuid
from contextlib import suppress
from decimal import Decimal
from itertools import zip_longest

import pytest
from django.conf import settings as django_settings
from django.db import IntegrityError, connection, transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import levada
from levada.testing import assert_replicated, begin, drain, end
from tests.shop.models import Book, Customer, Everything, Order, OrderLine, Product, Seat, Tag

REPLICATED = [
    Customer,
    Order,
    Order.tags.through,
    OrderLine,
    Product,
    Book,
    Everything,
    Seat,
]

UTC = datetime.UTC
SQLITE = connection.vendor == "sqlite"

# PostgreSQL has no NUL in text; a lone surrogate is no text anywhere.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
moments = st.datetimes(
    datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1), timezones=st.just(UTC)
)
numbers = st.floats(allow_nan=not SQLITE)  # SQLite keeps NaN as NULL
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
VALUES = {
    "big": st.integers(-(2**63), 2**63 - 1),
    "small": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "positive": st.integers(0, 2**63 - 1),
    "flag": st.booleans(),
    "real": numbers,
    # An SQLite column keeps a decimal as a float: 15 significant digits are exact.
    "price": st.decimals(-(10**10), 10**10, places=4, allow_nan=False, allow_infinity=False),
    "char": text,
    "text": text,
    "slug": st.from_regex(r"[a-z0-9_-]{0,12}", fullmatch=True),
    "url": text,
    "ip": st.ip_addresses().map(str),
    "file": text,
    "day": st.dates(datetime.date(1, 1, 1), datetime.date(9999, 12, 31)),
    "clock": st.times(),
    "moment": moments,
    "span": st.timedeltas(datetime.timedelta(days=-99_999), datetime.timedelta(days=99_999)),
    "ident": st.uuids(),
    "blob": st.binary(max_size=12),
    "data": json_values,
}
everything = st.fixed_dictionaries({}, optional=VALUES)
names = st.sampled_from(["Ana", "João", "Zoë", "'; DROP TABLE x; --", ""])
amounts = st.decimals(0, 99_999, places=2)


class _RollBack(Exception):
    """Raised to leave an atomic block without its writes."""


def comparable(value):
    """Write a value so that equal means the same, NaN and the sign of zero included."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else (value, math.copysign(1, value))
    if isinstance(value, memoryview):
        return bytes(value)
    return value


def rows_of(queryset, fields):
    """Return the queryset's rows, comparable, by the text of their first columns."""
    rows = [tuple(map(comparable, row)) for row in queryset.values_list(*fields)]
    return sorted(rows, key=repr)


def difference(model, fields, source, store):
    """Name the first row and column that differ: a whole table is more than anyone reads."""
    for left, right in zip_longest(source, store):
        for name, ours, theirs in zip(fields, left or (), right or (), strict=False):
            if ours != theirs:
                return f"{model._meta.label} {left[0]}: {name} is {ours!r}, replica {theirs!r}"
        if left is None or right is None:
            return f"{model._meta.label}: {left} in the source, {right} in the replica"
    raise AssertionError("equal rows, unequal tables")


def fields_of(model):
    excluded = {"password"}
    return [
        field.attname
        for field in model._meta.concrete_fields
        if getattr(field, "column", None) and field.name not in excluded
    ]


class Shop(RuleBasedStateMachine):
    """The operations; each leaves the source in a state that the replica must follow."""

    def __init__(self):
        super().__init__()
        self.open = []

    @initialize()
    def empty(self):
        for model in (OrderLine, Order, Customer, Tag, Book, Product, Everything, Seat):
            model.objects.all().delete()
        begin()

    # Transactions: `enter` opens a nested one, `leave` commits it or rolls it back.

    @precondition(lambda self: len(self.open) < 3)
    @rule()
    def enter(self):
        atomic = transaction.atomic()
        atomic.__enter__()
        self.open.append(atomic)

    @precondition(lambda self: self.open)
    @rule(commit=st.booleans())
    def leave(self, commit):
        self._leave(commit)

    def _leave(self, commit):
        atomic = self.open.pop()
        if commit:
            atomic.__exit__(None, None, None)
        else:
            error = _RollBack()
            atomic.__exit__(_RollBack, error, None)

    # Writes.

    @rule(name=names, created_at=st.none() | moments)
    def create_customer(self, name, created_at):
        Customer.objects.create(name=name, password="secret", created_at=created_at)

    @rule(n=st.integers(1, 30), total=amounts)
    def bulk_create_orders(self, n, total):
        customer = Customer.objects.order_by("id").last()
        if customer:
            Order.objects.bulk_create(
                [Order(customer=customer, total=total + i, number=uuid.uuid4()) for i in range(n)]
            )

    @rule(quantity=st.integers(0, 100), price=amounts)
    def add_a_line(self, quantity, price):
        order = Order.objects.order_by("id").first()
        if order:
            order.lines.create(sku=f"sku-{quantity}", quantity=quantity, price=price)

    @rule(name=st.sampled_from("abc"))
    def tag_an_order(self, name):
        order = Order.objects.order_by("id").last()
        if order:
            order.tags.add(Tag.objects.get_or_create(name=name)[0])

    @rule()
    def clear_tags(self):
        order = Order.objects.order_by("id").last()
        if order:
            order.tags.clear()

    @rule(total=amounts, country=st.sampled_from(["PT", "", "é"]))
    def update_many(self, total, country):
        Order.objects.filter(total__gte=total).update(country=country, total=total)

    @rule()
    def delete_a_customer_and_all_below(self):
        customer = Customer.objects.order_by("id").first()
        if customer:
            customer.delete()

    @rule(name=names, pages=st.integers(-5, 5))
    def create_a_book(self, name, pages):
        Book.objects.create(name=name, isbn=name, pages=pages, price=Decimal("9.90"))

    @rule(pages=st.integers(-5, 5))
    def update_books_in_both_tables(self, pages):
        Book.objects.update(pages=pages, name=f"{pages} pages")

    @rule()
    def delete_a_book(self):
        book = Book.objects.order_by("pk").first()
        if book:
            book.delete()

    @rule(row=st.sampled_from("AB"), number=st.integers(1, 4), taken=st.booleans())
    def take_a_seat(self, row, number, taken):
        Seat.objects.update_or_create(row=row, number=number, defaults={"taken": taken})

    @rule(number=st.integers(1, 4))
    def move_seats_by_changing_their_key(self, number):
        # Two seats may get one number: then the database undoes what it has begun.
        with suppress(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("UPDATE shop_seat SET number = number + 10 WHERE number = %s", [number])

    @rule(number=st.integers(10, 14))
    def delete_seats(self, number):
        Seat.objects.filter(number__gte=number).delete()

    @rule(values=everything)
    def create_everything(self, values):
        Everything.objects.create(**values)

    @rule(values=everything)
    def update_everything(self, values):
        if values:
            Everything.objects.order_by("id").filter(id__gt=0).update(**values)

    @rule(values=st.lists(everything, min_size=1, max_size=5))
    def bulk_create_everything(self, values):
        Everything.objects.bulk_create([Everything(**each) for each in values])

    @rule()
    def copy_and_delete_by_raw_sql(self):
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO shop_product (name, price) SELECT name, price + 1 FROM shop_product"
                " WHERE id IN (SELECT max(id) FROM shop_product)"
            )
            cursor.execute(
                "DELETE FROM shop_orderline WHERE id IN (SELECT max(id) FROM shop_orderline)"
            )

    # What must hold.

    @precondition(lambda self: not self.open)
    @rule()
    def both_databases_answer_alike(self):
        self._compare()

    def _compare(self):
        drain(groups=())
        for model in REPLICATED:
            fields = fields_of(model)
            source = rows_of(model._default_manager.using("default"), fields)
            store = rows_of(levada.replica(model), fields)
            assert store == source, difference(model, fields, source, store)

    def teardown(self):
        try:
            while self.open:
                self._leave(commit=True)
            self._compare()
            assert_replicated()
        finally:
            end()


@pytest.mark.django_db(transaction=True, databases=["default", "analytics"])
class TestRandomWrites(Shop.TestCase):
    """One run of `Shop` an example."""

    settings = settings(
        max_examples=int(os.environ.get("LEVADA_TEST_EXAMPLES", "10")),
        stateful_step_count=30,
        phases=[Phase.generate, Phase.shrink],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def tiny_batches(settings):
    settings.LEVADA = django_settings.LEVADA | {"BATCH_ROWS": 3}


@pytest.mark.usefixtures("tiny_batches")
@pytest.mark.django_db(transaction=True, databases=["default", "analytics"])
class TestRandomWritesInParts(Shop.TestCase):
    """The same where nearly every transaction is larger than a batch."""

    settings = TestRandomWrites.settings
