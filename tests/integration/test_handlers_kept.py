"""A keeper that runs relay, appliers and handlers, and a session that reads what it wrote."""

import pytest
from django.db import transaction

import levada
from levada.apply import handlers, subscriptions
from levada.keeper import Keeper
from levada.models import DeadLetter
from tests.conditions import wait_until
from tests.shop.models import Product, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "analytics"])


@pytest.fixture
def kept(monkeypatch, levada_drain):
    """A keeper that runs, with the subscriptions of this test alone."""
    registry = subscriptions.Registry()
    monkeypatch.setattr(subscriptions, "registry", registry)
    monkeypatch.setattr(handlers, "registry", registry)
    levada_drain()
    levada.reading.through = None

    @levada.subscribe("orders.paid", group="receipts", retries=2, backoff_s=0.01)
    def receipt(change):
        Tag.objects.create(name=f"receipt-{change.after['order']}")
        if change.after["order"] == 2:
            raise ValueError("no address")

    keeper = Keeper()
    keeper.start()
    yield keeper
    assert keeper.stop()
    levada.reading.close_stores()


def test_handlers_and_stores_follow_what_commits(kept):
    with transaction.atomic():
        Product.objects.create(name="cork")
        levada.publish("orders.paid", {"order": 1})
    levada.publish("orders.paid", {"order": 2})
    levada.publish("orders.paid", {"order": 3})

    levada.wait_for("analytics", levada.position(), timeout_s=60)
    assert levada.replica(Product).get().name == "cork"
    wait_until(lambda: Tag.objects.filter(name="receipt-3").exists())
    assert sorted(Tag.objects.values_list("name", flat=True)) == ["receipt-1", "receipt-3"]
    assert DeadLetter.objects.get().reason == "ValueError: no address"
    assert {part.state for part in kept.parts()} == {"running"}
