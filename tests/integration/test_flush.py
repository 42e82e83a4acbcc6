"""Flush empties the project's tables: captured on the source, and a replica is built anew."""

import io
from contextlib import closing

import pytest
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import connection, connections, transaction
from django.utils import timezone

import levada
from levada import capture
from levada.apply import verify
from levada.models import (
    DeadLetter,
    GroupPosition,
    Outbox,
    RelayCursor,
    ReplicatedTable,
    VerifiedTable,
)
from levada.stores import open_store
from tests.conftest import VENDOR
from tests.shop.models import Customer, Order, OrderLine, Product, Seat, Tag

from .captured import captured
from .channel import Channel
from .projects import Project

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "analytics"])
OWN = (DeadLetter, GroupPosition, Outbox, RelayCursor, ReplicatedTable, VerifiedTable)
FLUSHES = {
    "manage.py flush": {},
    "a TransactionTestCase": {"reset_sequences": False},
    "a TransactionTestCase with available_apps": {
        "reset_sequences": False,
        "allow_cascade": True,
        "inhibit_post_migrate": True,
    },
}


def flush(alias="default", **options):
    call_command("flush", database=alias, interactive=False, verbosity=0, **options)


@pytest.fixture
def channel(tmp_path):
    channel = Channel(tmp_path / "store.duckdb")
    yield channel
    channel.close()


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    project.manage("migrate", "--verbosity", "0")
    yield project
    project.close()


def a_shop():
    order = Order.objects.create(customer=Customer.objects.create(name="Ana"), total=5)
    OrderLine.objects.bulk_create([OrderLine(order=order, sku=sku) for sku in ("a", "b")])
    order.tags.add(Tag.objects.create(name="gift"))
    Seat.objects.create(row="A", number=1)


def one_row_in_each_own_table():
    DeadLetter.objects.create(
        consumer="mails", epoch="e", topic="t", offset=1, record="{}", reason="no"
    )
    GroupPosition.objects.create(group="mails", topic="t", epoch="e", offset=1)
    RelayCursor.objects.create(epoch="e", cursor="1")
    VerifiedTable.objects.create(
        store="analytics", label="t", equal=True, source_rows=1, verified_at=timezone.now()
    )


def test_flush_captures_what_it_deletes():
    a_shop()
    Outbox.objects.all().delete()

    flush()

    assert not Order.objects.exists()
    assert {change.op for change in captured()} == {"t" if VENDOR == "postgresql" else "d"}
    assert {change.label for change in captured()} >= {
        "shop.Customer",
        "shop.Order",
        "shop.OrderLine",
        "shop.Order_tags",
        "shop.Seat",
    }


def test_flush_leaves_levadas_own_tables_alone():
    """Else the outbox went with the deletions in it, and a handler's group began anew."""
    one_row_in_each_own_table()
    Product.objects.create(name="waits")
    before = {model: set(model.objects.values_list("pk", flat=True)) for model in OWN}

    flush()

    for model, keys in before.items():
        assert keys <= set(model.objects.values_list("pk", flat=True)), model
        assert keys, model


@pytest.mark.parametrize("options", FLUSHES.values(), ids=FLUSHES)
def test_the_ids_of_the_outbox_go_on_and_the_triggers_stay_registered(options):
    Product.objects.create(name="before")
    newest = Outbox.objects.latest("id").pk

    flush(**options)
    Product.objects.create(name="after")

    assert Outbox.objects.get(after__contains="after").pk > newest
    assert capture.stale("default") == []


def test_a_store_follows_a_flush_and_what_comes_after_it(channel):
    """Keys begin again, so a store that missed the deletions would take new rows for old ones."""
    a_shop()
    channel.drain()

    flush()
    channel.drain()
    assert channel.rows("SELECT count(*) FROM shop_order") == [(0,)]
    assert channel.verify().equal

    a_shop()
    assert Order.objects.get().pk == 1
    channel.drain()
    assert channel.rows("SELECT id FROM shop_order") == [(1,)]
    assert channel.verify().equal


def test_what_sqlflush_prints_spares_our_tables_and_is_captured(channel):
    a_shop()
    channel.drain()
    out = io.StringIO()
    call_command("sqlflush", stdout=out, no_color=True)
    assert "shop_order" in out.getvalue()
    assert "levada_" not in out.getvalue()

    with transaction.atomic(), connection.cursor() as cursor:
        for statement in out.getvalue().split(";"):
            if statement.strip() not in ("", "BEGIN", "COMMIT"):
                cursor.execute(statement)
    channel.drain()

    assert channel.rows("SELECT count(*) FROM shop_order_tags") == [(0,)]
    assert channel.verify().equal


@pytest.mark.parametrize("options", list(FLUSHES.values())[1:], ids=list(FLUSHES)[1:])
def test_the_flush_after_a_test_leaves_it_no_records(options):
    """The next test, which may be a TestCase, must not find the deletions of this one."""
    one_row_in_each_own_table()
    a_shop()

    flush(**options)

    assert not Order.objects.exists()
    assert [model for model in OWN if model.objects.exists()] == [ReplicatedTable]


def test_resetting_sequences_leaves_those_of_the_outbox():
    """A TransactionTestCase with `reset_sequences` does this before each test."""
    Product.objects.create(name="before")
    newest = Outbox.objects.latest("id").pk
    Product.objects.all().delete()
    Outbox.objects.all().delete()

    sequences = connection.introspection.sequence_list()
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_by_name_sql(no_style(), sequences):
            cursor.execute(statement)

    assert Product.objects.create(name="after").pk == 1
    assert Outbox.objects.latest("id").pk > newest


def test_a_flushed_replica_is_one_that_was_never_filled(levada_drain, levada_assert_replicated):
    Product.objects.create(name="cork")
    levada_drain()

    flush("analytics")

    assert not levada.replica(Product).exists()
    with closing(open_store("analytics")) as store:
        assert (store.position(), store.specs()) == (None, {})
    found = verify("analytics", timeout_s=0)
    assert not found.equal
    assert "analytics did not catch up" in found.undecided
    levada_drain()
    assert levada.replica(Product).get().name == "cork"
    levada_assert_replicated()


def test_a_flush_of_other_tables_keeps_the_replica(levada_drain):
    """A router may keep migrations of replicated models away from the store."""
    Product.objects.create(name="cork")
    levada_drain()
    statements = connections["analytics"].ops.sql_flush(no_style(), ["auth_user"])
    assert statements == ['DELETE FROM "auth_user";']


def test_a_keeper_follows_a_flush_of_the_source_and_of_the_store(project):
    """The keeper and its clients go on; nobody has to rebuild anything by hand."""
    seats = "from tests.shop.models import Seat; "
    count = "print(Seat.objects.using('analytics').count())"
    project.manage("migrate", "--database", "analytics", "--verbosity", "0")
    project.python(seats + "Seat.objects.bulk_create([Seat(row='A', number=n) for n in range(50)])")
    project.keep()
    assert "50 rows" in project.levada("verify", "analytics")

    project.manage("flush", "--no-input")
    project.python(seats + "Seat.objects.create(row='B', number=1)")
    project.levada("verify", "analytics")
    assert project.python(seats + count) == "1\n"

    project.manage("flush", "--no-input", "--database", "analytics")
    project.levada("verify", "analytics")
    assert project.python(seats + count) == "1\n"


def test_a_database_of_replicas_alone_is_not_flushed(project):
    """Django would answer the flush of a database that was never migrated with a traceback."""
    project.python("from tests.shop.models import Seat; Seat.objects.create(row='A', number=1)")
    project.levada("rebuild", "analytics")

    for command in (["flush", "--no-input"], ["sqlflush"]):
        said = project.manage(*command, "--database", "analytics", exit_status=1)
        assert "CommandError: 'analytics' holds nothing but replicas" in said
        assert "manage.py levada rebuild analytics" in said
    project.levada("verify", "analytics")
