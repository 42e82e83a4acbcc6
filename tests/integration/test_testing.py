"""`levada.testing`: drain in a TestCase and on committed data, and what it refuses."""

import os
import re
import subprocess
import sys
import threading
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

import levada
from levada.apply import handlers, subscriptions
from levada.errors import NotCommitted
from levada.models import DeadLetter, Outbox
from levada.testing import LevadaTestMixin, assert_replicated, drain
from tests.shop.models import Book, Customer, Everything, Order, Product, Tag

BOTH = ["default", "analytics"]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Subscriptions of one test alone."""
    empty = subscriptions.Registry()
    monkeypatch.setattr(subscriptions, "registry", empty)
    monkeypatch.setattr(handlers, "registry", empty)
    return empty


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("testcase", marks=pytest.mark.django_db(databases=BOTH)),
        pytest.param("committed", marks=pytest.mark.django_db(transaction=True, databases=BOTH)),
    ],
)
class TestDrain:
    """Each fact holds in the transaction of a TestCase and on committed data."""

    def test_what_was_written_is_in_the_replica_afterwards(self, kind, levada_drain):
        customer = Customer.objects.create(name="Ana", password="secret")
        order = Order.objects.create(customer=customer, total=Decimal("12.50"))
        order.tags.add(Tag.objects.create(name="new"))
        Book.objects.create(name="Levadas", isbn="1")
        levada_drain()
        assert list(levada.replica(Order).values_list("id", "total")) == [(order.pk, order.total)]
        assert levada.replica(Customer).get().name == "Ana"
        assert levada.replica(Book).get().isbn == "1"
        order.delete()
        levada_drain()
        assert not levada.replica(Order).exists()
        assert_replicated()

    def test_a_second_drain_has_nothing_to_do(self, kind, levada_drain):
        Product.objects.create(name="cork")
        levada_drain()
        drained = levada_drain()
        assert (drained.relayed, drained.applied) == (0, {"analytics": 0})

    def test_handlers_run_and_what_they_write_is_carried_as_well(self, kind, levada_drain):
        @levada.subscribe("changes:shop.Product", group="count")
        def count(change):
            if change.op == "c" and change.after["name"] == "cork":
                Product.objects.create(name="bottle")

        Product.objects.create(name="cork")
        drained = levada_drain()
        assert sorted(levada.replica(Product).values_list("name", flat=True)) == ["bottle", "cork"]
        assert drained.relayed == 2
        assert drained.handled == {"count": 2}

    def test_a_published_message_reaches_its_handler(self, kind, levada_drain):
        seen = []
        levada.subscribe("paid", group="mails", start="end")(lambda change: seen.append(change))
        levada.publish("paid", {"order": 7}, key=7)
        levada.publish("paid", {"order": 8})
        levada_drain()
        assert [(each.key, each.after) for each in seen] == [
            ((7,), {"order": 7}),
            ((), {"order": 8}),
        ]

    def test_nothing_of_an_earlier_test_arrives(self, kind, levada_drain):
        """Its neighbours have left records, groups and rows."""
        seen = []
        levada.subscribe("paid", group="mails")(lambda change: seen.append(change))
        levada.subscribe("changes:shop.Product", group="count")(lambda change: seen.append(change))
        levada_drain()
        assert seen == []
        assert not levada.replica(Product).exists()

    def test_a_handlers_exception_ends_the_drain(self, kind, levada_drain):
        @levada.subscribe("paid", group="mails")
        def mails(change):
            Tag.objects.create(name="half")
            raise KeyError("address")

        levada.publish("paid", 1)
        with pytest.raises(KeyError, match="address"):
            levada_drain()
        assert not Tag.objects.exists()

    def test_a_failing_handler_gets_its_tries_without_pauses_if_asked(self, kind, levada_drain):
        tries = []

        @levada.subscribe("paid", group="mails", retries=3, backoff_s=3600)
        def mails(change):
            tries.append(change)
            raise KeyError("address")

        levada.publish("paid", 1)
        levada_drain(raise_errors=False)
        assert len(tries) == 3
        assert DeadLetter.objects.get().consumer == "mails"

    def test_inside_a_transaction_of_the_test_it_refuses(self, kind, levada_drain):
        with transaction.atomic(), pytest.raises(NotCommitted, match="inside a transaction"):
            levada_drain()

    def test_handlers_that_answer_each_other_for_ever_are_named(
        self, kind, levada_drain, monkeypatch
    ):
        monkeypatch.setattr("levada.testing.draining.MOST_ROUNDS", 5)

        @levada.subscribe("ping", group="pong")
        def pong(change):
            levada.publish("ping", change.after + 1)

        levada.publish("ping", 0)
        with pytest.raises(RecursionError, match="drain"):
            levada_drain()

    def test_waiting_for_a_store_needs_no_keeper(self, kind, levada_drain):
        Product.objects.create(name="cork")
        levada.wait_for("analytics", levada.position(), timeout_s=30)
        assert levada.replica(Product).get().name == "cork"

    def test_waiting_in_async_code_needs_no_keeper_either(self, kind, levada_drain):
        async def main():
            await Product.objects.acreate(name="cork")
            await levada.await_for("analytics", await levada.aposition(), timeout_s=30)
            return [product.name async for product in levada.replica(Product)]

        assert async_to_sync(main)() == ["cork"]

    def test_a_record_the_store_refuses_becomes_a_dead_letter(self, kind, levada_drain):
        """In a TestCase the store goes back to a savepoint, and the test's rows stay."""
        Everything.objects.create(pk=1)
        levada_drain()
        Everything.objects.bulk_create(Everything(pk=pk) for pk in (2, 3))
        record = Outbox.objects.filter(key="[2]").latest("id")
        record.after, count = re.subn(r'("small" ?: ?)null', r"\g<1>70000", record.after)
        assert count == 1
        record.save()
        levada_drain()
        assert DeadLetter.objects.get().key == "[2]"
        assert set(levada.replica(Everything).values_list("pk", flat=True)) == {1, 3}

    def test_a_replica_that_differs_fails_by_row_and_column(self, kind, levada_assert_replicated):
        product = Product.objects.create(name="cork")
        levada_assert_replicated(Product)
        levada.replica(Product).update(name="corkscrew")
        with pytest.raises(AssertionError, match="corkscrew") as failure:
            levada_assert_replicated(Product)
        assert str(product.pk) in str(failure.value)
        levada_assert_replicated(Customer)


@pytest.mark.django_db
def test_a_testcase_that_lists_no_store_still_runs_its_handlers(levada_drain):
    seen = []
    levada.subscribe("paid", group="mails")(lambda change: seen.append(change))
    levada.publish("paid", 1)
    assert levada_drain().applied == {}
    assert len(seen) == 1


@pytest.mark.django_db(transaction=True, databases=BOTH)
def test_what_another_thread_committed_is_drained(levada_drain):
    def work():
        Product.objects.create(name="cork")
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    levada_drain()
    assert levada.replica(Product).get().name == "cork"


class InATestCase(LevadaTestMixin, TestCase):
    databases = {"default", "analytics"}

    @classmethod
    def setUpTestData(cls):
        Product.objects.create(name="from the class")

    def test_data_of_the_class_is_there_too(self):
        Product.objects.create(name="own")
        self.drain()
        names = levada.replica(Product).order_by("name").values_list("name", flat=True)
        assert list(names) == ["from the class", "own"]
        self.assert_replicated(Product)

    def test_and_data_of_its_other_tests_is_not(self):
        self.drain()
        assert levada.replica(Product).get().name == "from the class"


class InATransactionTestCase(LevadaTestMixin, TransactionTestCase):
    databases = {"default", "analytics"}

    def test_committed_data_arrives(self):
        Product.objects.create(name="own")
        self.drain()
        self.assert_replicated(Product)
        assert levada.replica(Product).get().name == "own"

    def test_data_of_its_other_tests_does_not(self):
        self.drain()
        assert not levada.replica(Product).exists()


@pytest.mark.django_db
def test_drain_needs_no_fixture():
    Product.objects.create(name="cork")
    assert drain().relayed == 1
    assert not Outbox.objects.exists()


def run_pytest(folder, code):
    """Run a test file with the plugin alone in a process of its own; return what it printed."""
    (folder / "test_it.py").write_text(code)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "LEVADA_TEST_DIR": str(folder),
        "LEVADA_TEST_SOURCE": "",
        # Where Levada is installed its plugin would come a second time, by its entry point.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    plugins = ["-p", "pytest_django.plugin", "-p", "levada.testing.plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-q", "test_it.py"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout


@pytest.mark.sqlite
def test_the_plugin_says_what_to_mark_where_there_is_no_database(tmp_path):
    printed = run_pytest(tmp_path, "def test_it(levada_drain): pass")
    assert "levada_drain needs a database. Mark the test: @pytest.mark.django_db" in printed


@pytest.mark.sqlite
def test_the_plugin_needs_no_mark_where_a_database_fixture_is_asked_for(tmp_path):
    printed = run_pytest(
        tmp_path, "def test_it(levada_drain, db): assert levada_drain().relayed == 0"
    )
    assert "1 passed" in printed
