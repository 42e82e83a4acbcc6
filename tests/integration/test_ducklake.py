"""
A lake, really: DuckLake with its catalogue in PostgreSQL, through the ORM and several processes.

Needs a DuckDB with the extensions ducklake and postgres_scanner, and PostgreSQL:
`make ducklake-test`. What needs neither is in test_ducklake_options.py.
"""

import datetime
import json
import os
import shutil
import subprocess
import sys
import uuid
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.db import (
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    connections,
    models,
    transaction,
)
from django.db.models import Sum
from django.test.utils import isolate_apps

from levada.errors import MissingExtension
from levada.stores.duckdb import extensions, older, ownership
from levada.stores.duckdb.ducklake.lake import EXTENSIONS, METADATA
from tests.integration.duckdb_alias import alias_with
from tests.settings import SOURCE_URL
from tests.shop.models import Customer, Everything, Order, Product, Tag


def why_not():
    """Return why a lake cannot be tested here, None if it can."""
    if not SOURCE_URL:
        return "a lake's catalogue needs PostgreSQL: LEVADA_TEST_SOURCE"
    with duckdb.connect() as connection:
        try:
            extensions.load(connection, EXTENSIONS)
        except MissingExtension as error:
            return f"{error} Here: make ducklake-test"
    return None


REASON = why_not()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    pytest.mark.postgresql,
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Name, catalogue and folder of a lake into which everything was migrated."""
    return f"lake_{uuid.uuid4().hex[:12]}", SOURCE_URL, tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def migrated(place, django_db_blocker):
    with django_db_blocker.unblock():
        with opened(place):
            call_command("migrate", database="lake", verbosity=0)
        yield place
        with opened(place) as connection:
            connection.creation._remove(place[0])


@pytest.fixture
def lake(migrated, django_db_blocker):
    with django_db_blocker.unblock(), opened(migrated) as connection:
        yield connection


def opened(place, alias="lake", **options):
    name, catalog, folder = place
    given = {"catalog": catalog, "data_path": folder, **options.pop("ducklake", {})}
    return alias_with({"ducklake": given, **options}, name=name, alias=alias)


def run(sql, params=None, alias="lake"):
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else cursor.rowcount


def start(place, act, times):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.lake_child", *map(str, place), act, str(times)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def ended(process):
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return json.loads(out)


def test_every_app_migrates_into_a_lake_and_works(lake):
    assert Permission.objects.using("lake").filter(codename="add_order").count() == 1
    group = Group.objects.using("lake").create(name="editors")
    group.permissions.set(Permission.objects.using("lake").filter(codename__startswith="add_"))
    assert group.permissions.count() > 10
    call_command("migrate", database="lake", verbosity=0)  # nothing is left to do


def test_rows_are_written_read_changed_and_deleted(lake):
    ana = Customer.objects.using("lake").create(name="Ana", country="PT")
    order = Order.objects.using("lake").create(customer=ana, total=Decimal("12.50"))
    order.tags.add(*(Tag.objects.using("lake").create(name=name) for name in "ab"))
    order.total += 1
    order.save()
    found = Order.objects.using("lake").select_related("customer").get(number=order.number)
    assert (found.total, found.customer.name) == (Decimal("13.50"), "Ana")
    assert sorted(found.tags.values_list("name", flat=True)) == ["a", "b"]
    assert Order.objects.using("lake").filter(pk=order.pk).update(country="SE") == 1
    assert Order.objects.using("lake").aggregate(sum=Sum("total")) == {"sum": Decimal("13.50")}
    found, made = Customer.objects.using("lake").get_or_create(name="Ana")
    assert (found.pk, made) == (ana.pk, False)
    assert ana.delete()[1] == {"shop.Order_tags": 2, "shop.Order": 1, "shop.Customer": 1}


def test_values_of_every_type_come_back_as_they_went(lake):
    values = {
        "big": -(2**63), "small": -7, "integer": 2**31 - 1, "positive": 2**63 - 1, "flag": True,
        "real": 0.1, "price": Decimal("12345678901.2345"), "char": "é🦆'\"%s", "text": "",
        "ip": "::1", "day": datetime.date(1, 1, 1), "clock": datetime.time(1, 2, 3, 4),
        "moment": datetime.datetime(2026, 11, 21, 8, 30, 0, 123456, datetime.UTC),
        "span": datetime.timedelta(days=-1, microseconds=1), "ident": uuid.UUID(int=5),
        "blob": b"\x00\xff", "data": {"a": [1, None, "ü"]},
    }  # fmt: skip
    for written in (values, dict.fromkeys(values)):
        made = Everything.objects.using("lake").create(**written)
        (found,) = Everything.objects.using("lake").filter(pk=made.pk).values(*written)
        assert found == written


def test_automatic_keys_are_drawn_and_pass_over_keys_given_by_hand(lake):
    made = Product.objects.using("lake").bulk_create(Product(name=str(n)) for n in range(100))
    keys = [each.pk for each in made]
    assert keys == list(range(keys[0], keys[0] + 100))
    highest = keys[-1] + 1000
    Product(pk=highest, name="by hand").save(using="lake")
    Product.objects.using("lake").bulk_create([Product(pk=highest + 1, name="too")])
    assert Product.objects.using("lake").create(name="after").pk == highest + 2
    Product.objects.using("lake").all().delete()


def test_many_rows_become_parquet_files_in_the_folder(lake, migrated):
    run("INSERT INTO shop_tag SELECT n, 'tag ' || n FROM range(5000, 7000) r(n)")
    assert list((Path(migrated[2]) / migrated[0]).rglob("*.parquet"))
    assert Tag.objects.using("lake").filter(name="tag 6000").count() == 1
    assert Tag.objects.using("lake").filter(pk__gte=5000).delete()[0] == 2000


def test_a_transaction_is_all_or_nothing(lake):
    with pytest.raises(ZeroDivisionError), transaction.atomic("lake"):  # noqa: PT012
        Product.objects.using("lake").create(name="gone")
        raise ZeroDivisionError
    assert not Product.objects.using("lake").filter(name="gone").exists()


def test_an_inner_block_that_fails_takes_the_outer_one_with_it(lake):
    products = Product.objects.using("lake")
    with transaction.atomic("lake"):
        products.create(name="not kept")
        with pytest.raises(ProgrammingError), transaction.atomic("lake"):
            run("SELECT * FROM nowhere")
        with pytest.raises(transaction.TransactionManagementError):
            products.count()
    assert not products.filter(name="not kept").exists()


def test_a_lake_is_not_cloned_for_parallel_tests(lake):
    with pytest.raises(NotSupportedError, match="--parallel"):
        lake.creation.clone_test_db("1", verbosity=0)


def test_two_transactions_on_one_row_conflict_and_the_loser_is_told_to_run_again(lake):
    Customer.objects.using("lake").create(name="contested", country="0")
    other = ownership.connect(lake.place)
    other.begin()
    other.execute("UPDATE shop_customer SET country = '1' WHERE name = 'contested'")

    def lose():
        with transaction.atomic("lake"):
            Customer.objects.using("lake").filter(name="contested").update(country="2")
            other.commit()

    with pytest.raises(OperationalError, match=r"Run (it|the transaction) again"):
        lose()
    other.close()
    assert Customer.objects.using("lake").get(name="contested").country == "1"


def test_two_processes_write_while_a_third_reads_and_nothing_is_lost_or_seen_in_part(
    lake, migrated
):
    Product.objects.using("lake").all().delete()
    writers = [start(migrated, "write", 8) for _ in range(2)]
    reader = start(migrated, "read", 20)
    assert [ended(each) for each in writers] == [8, 8]
    assert ended(reader)[0] == 0
    products = Product.objects.using("lake")
    assert products.count() == 160
    assert products.values("pk").distinct().count() == 160
    assert products.aggregate(total=Sum("price"))["total"] == 0


def test_two_processes_that_change_one_row_lose_no_change(lake, migrated):
    Customer.objects.using("lake").create(name="counter", country="0")
    for each in [start(migrated, "count", 8) for _ in range(2)]:
        ended(each)
    assert Customer.objects.using("lake").get(name="counter").country == "16"


@isolate_apps("tests.shop")
def test_tables_change_with_their_rows(lake):
    class Gauge(models.Model):
        name = models.CharField(max_length=20, db_comment="its name")
        level = models.SmallIntegerField(unique=True, db_index=True)

        class Meta:
            app_label = "shop"
            indexes = [models.Index(fields=["name"], name="gauge_name")]
            constraints = [
                models.CheckConstraint(condition=models.Q(level__gt=0), name="gauge_level")
            ]

        def __str__(self):
            return self.name

    def altered(old_name, field, name=None):
        field.set_attributes_from_name(name or old_name)
        field.model = Gauge
        with lake.schema_editor() as editor:
            editor.alter_field(Gauge, Gauge._meta.get_field(old_name), field)

    with lake.schema_editor() as editor:
        editor.create_model(Gauge)
    Gauge.objects.using("lake").create(name="west", level=7)
    added = models.CharField(max_length=5, default="m", null=False)
    added.set_attributes_from_name("unit")
    added.model = Gauge
    with lake.schema_editor() as editor:
        editor.add_field(Gauge, added)
    assert run("SELECT id, name, level, unit FROM shop_gauge") == [(1, "west", 7, "m")]
    altered("level", models.BigIntegerField())  # wider: in place
    altered("level", models.CharField(max_length=9))  # not wider: by a copy
    altered("name", models.TextField(null=True), "title")
    assert run("SELECT level, title FROM shop_gauge") == [("7", "west")]
    run("INSERT INTO shop_gauge (id, level, unit) VALUES (2, '8', 'm')")
    with pytest.raises(IntegrityError, match="NOT NULL"):
        run("INSERT INTO shop_gauge (unit) VALUES ('m')")
    with pytest.raises(NotSupportedError, match=r"atomic = False"), transaction.atomic("lake"):
        lake.schema_editor().__enter__()
    with lake.schema_editor() as editor:
        editor.remove_field(Gauge, added)
        editor.alter_db_table(Gauge, "shop_gauge", "shop_meter")
    assert run("SELECT id, title, level FROM shop_meter ORDER BY id") == [
        (1, "west", "7"),
        (2, None, "8"),
    ]
    run("DROP TABLE shop_meter")


@isolate_apps("tests.shop")
def test_a_computed_column_is_refused_by_name(lake):
    class Square(models.Model):
        side = models.IntegerField()
        area = models.GeneratedField(
            expression=models.F("side") * models.F("side"),
            output_field=models.IntegerField(),
            db_persist=False,
        )

        class Meta:
            app_label = "shop"

        def __str__(self):
            return str(self.side)

    with (
        pytest.raises(NotSupportedError, match=r"shop.Square.area is a column .* in save\(\)"),
        lake.schema_editor() as editor,
    ):
        editor.create_model(Square)


def test_a_snapshot_shows_the_lake_as_it_was_and_takes_no_rows(lake, migrated):
    group = Group.objects.using("lake").create(name="before")
    (number,) = run("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')")[0]
    Group.objects.using("lake").filter(name="before").update(name="after")
    now = run(f"SELECT name FROM auth_group AT (VERSION => {number}) WHERE name = 'before'")
    assert now == [("before",)]
    with opened(migrated, "past", ducklake={"snapshot": number}):
        assert list(Group.objects.using("past").filter(name__in=["before", "after"])) == [group]
        assert Group.objects.using("past").get(pk=group.pk).name == "before"
        with pytest.raises((OperationalError, ProgrammingError, NotSupportedError)) as raised:
            run("DELETE FROM auth_group", alias="past")
        assert "read-only" in str(raised.value)
    assert Group.objects.using("lake").get(pk=group.pk).name == "after"


def test_nothing_beside_the_lakes_own_folder_is_in_reach(lake, migrated, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(ProgrammingError, match=r"OPTIONS\['external'\]"):
        run(f"SELECT * FROM '{tmp_path}/secret.csv'")
    with pytest.raises(ProgrammingError, match="locked"):
        run("SET threads = 1")


def test_the_catalogues_password_is_in_no_answer(migrated, django_db_blocker, tmp_path):
    name, catalog, _ = migrated
    with_password = catalog.replace("://postgres@", "://postgres:open-sesame@")
    assert with_password != catalog
    listings = (
        "SELECT CAST(d AS VARCHAR) FROM duckdb_databases() d",
        "SELECT CAST(s AS VARCHAR) FROM duckdb_secrets() s",
        "SELECT CAST(s AS VARCHAR) FROM duckdb_settings() s",
    )
    with django_db_blocker.unblock(), opened((name, with_password, migrated[2])) as connection:
        for sql in listings:
            rows = run(sql)
            assert rows
            assert "open-sesame" not in str(rows)
        assert "open-sesame" not in connection.path
    nowhere = "postgresql://postgres:open-sesame@127.0.0.1:1/nowhere"
    with django_db_blocker.unblock(), opened((name, nowhere, tmp_path)):
        with pytest.raises(OperationalError) as raised:
            run("SELECT 1")
        assert "open-sesame" not in str(raised.value)


def test_a_test_lake_is_made_and_removed(migrated, django_db_blocker):
    with django_db_blocker.unblock(), opened(migrated) as connection:
        name = connection.settings_dict["NAME"]
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
        folder = Path(connection.lake.folder)
        assert connection.settings_dict["NAME"] == f"test_{name}"
        assert "shop_order" in connection.introspection.table_names()
        connection.creation.destroy_test_db(name, verbosity=0)
        assert connection.settings_dict["NAME"] == name
        assert not folder.exists()
        schemas = f"FROM postgres_query('{METADATA}', 'SELECT nspname::text FROM pg_namespace')"
        assert (f"test_{name}",) not in run(schemas)
        assert (name,) in run(schemas)


def test_a_lost_catalogue_is_an_operational_error(migrated, django_db_blocker, tmp_path):
    name, _, _ = migrated
    nowhere = ("postgresql://nobody@127.0.0.1:1/nowhere", tmp_path)
    with (
        django_db_blocker.unblock(),
        opened((name, *nowhere)),
        pytest.raises(OperationalError, match=r"(?i)refused"),
    ):
        run("SELECT 1")
    shutil.rmtree(tmp_path)


@pytest.mark.skipif(not older.OLDER, reason="this DuckDB is new enough for everything")
def test_a_duckdb_that_is_new_enough_for_lakes_alone_opens_no_file(django_db_blocker):
    with (
        django_db_blocker.unblock(),
        alias_with() as connection,
        pytest.raises(NotSupportedError, match=r"2\.0 or later is required"),
    ):
        connection.cursor()
