"""Models over Parquet and CSV files: queried with the ORM, never written, never injected."""

import asyncio
import datetime
import uuid
from decimal import Decimal

import pyarrow
import pyarrow.parquet
import pytest
from django.apps.registry import Apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, models
from django.db.models import Avg, Count, F, OuterRef, Subquery, Sum
from django.test.utils import isolate_apps

from levada.errors import ReadOnlyTable
from levada.stores.duckdb.files import CSV, FileModel, Parquet, model_source
from levada.stores.duckdb.loading import bulk_load
from tests.shop.models import Customer, Tag

from .test_duckdb_backend import UTC

START = datetime.datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def lake(django_db_blocker, tmp_path):
    """A folder of 3 × 1,000 trips, one file a year, and a database `lake` that may read it."""
    folder = tmp_path / "a lake's"
    for year in (2024, 2025, 2026):
        (folder / f"year={year}").mkdir(parents=True)
        table = pyarrow.table(
            {
                "id": range(year * 1000, year * 1000 + 1000),
                "customer_id": [1 + n % 2 for n in range(1000)],
                "fare": pyarrow.array(
                    [Decimal(n) / 100 for n in range(1000)], pyarrow.decimal128(8, 2)
                ),
                "at": pyarrow.array(
                    [START + datetime.timedelta(hours=n) for n in range(1000)],
                    pyarrow.timestamp("us", "UTC"),
                ),
            }
        )
        pyarrow.parquet.write_table(table, folder / f"year={year}" / "trips.parquet")
    with django_db_blocker.unblock():
        options = {
            "ENGINE": "levada.stores.duckdb",
            "NAME": f":memory:{uuid.uuid4().hex}",
            "OPTIONS": {"external": [tmp_path]},
        }
        connections.databases["lake"] = connections.configure_settings(
            {DEFAULT_DB_ALIAS: {}, "lake": options}
        )["lake"]
        connection = connections["lake"]
        call_command("migrate", "shop", database="lake", verbosity=0)
        for name in ("Ana", "Bo"):
            Customer.objects.using("lake").create(name=name)
        yield folder
        connection.close()
        connection.creation._destroy_test_db(connection.settings_dict["NAME"], 0)
        del connections["lake"], connections.databases["lake"]


@pytest.fixture
def trips(lake):
    with isolate_apps("tests.shop"):

        class Trip(FileModel):
            id = models.BigIntegerField(primary_key=True)
            customer = models.ForeignKey(Customer, models.DO_NOTHING, related_name="+")
            fare = models.DecimalField(max_digits=8, decimal_places=2)
            at = models.DateTimeField()
            year = models.IntegerField()

            source = Parquet(lake / "*" / "*.parquet", hive_partitioning=True)

            class Meta:
                app_label = "shop"

            def __str__(self):
                return str(self.pk)

        yield Trip.objects.using("lake")


def test_a_lake_is_asked_by_the_orm(trips):
    assert trips.count() == 3000
    trip = trips.get(pk=2025_007)
    assert (trip.fare, trip.at, trip.year) == (
        Decimal("0.07"),
        START + datetime.timedelta(hours=7),
        2025,
    )
    by_year = trips.values("year").annotate(n=Count("pk"), fares=Sum("fare")).order_by("year")
    assert list(by_year) == [
        {"year": year, "n": 1000, "fares": Decimal("4995.00")} for year in (2024, 2025, 2026)
    ]
    assert trips.filter(at__lt=START + datetime.timedelta(hours=10)).count() == 30
    assert trips.order_by("-pk")[:2].to_arrow()["id"].to_pylist() == [2026_999, 2026_998]


def test_a_table_of_the_same_name_stays_a_table(trips):
    class Trip(models.Model):
        city = models.TextField()

        class Meta:
            app_label = "shop"
            apps = Apps()

        def __str__(self):
            return self.city

    with connections["lake"].schema_editor() as editor:
        editor.create_model(Trip)
    Trip.objects.using("lake").create(city="Funchal")
    assert Trip.objects.using("lake").get().city == "Funchal"
    assert trips.count() == 3000


def test_files_are_joined_with_tables_and_with_files(trips):
    named = trips.filter(customer__name="Bo", year=2026).select_related("customer")
    assert named.count() == 500
    assert named.first().customer.name == "Bo"
    best = trips.filter(customer=OuterRef("pk")).order_by("-fare").values("fare")[:1]
    customers = Customer.objects.using("lake").annotate(best=Subquery(best)).order_by("pk")
    assert [each.best for each in customers] == [Decimal("9.98"), Decimal("9.99")]

    class Lap(FileModel):
        lap = models.BigIntegerField(primary_key=True, db_column="id")
        trip = models.ForeignKey(trips.model, models.DO_NOTHING, db_column="id", related_name="+")

        source = trips.model.source

        class Meta:
            app_label = "shop"

        def __str__(self):
            return str(self.pk)

    laps = Lap.objects.using("lake").filter(trip__fare__lt=1, trip__customer__name="Ana")
    assert laps.count() == 150
    twice = trips.filter(pk__in=trips.filter(fare=5).values("pk"))
    assert twice.count() == 3


def test_filters_reach_the_files(trips):
    plan = trips.filter(year=2025, fare__gt=5).values("pk").explain(analyze=True)
    assert "READ_PARQUET" in plan or "PARQUET_SCAN" in plan
    assert "1/3" in plan.replace(" ", "")
    assert "fare>" in plan.replace(" ", "").replace('"', "")
    columns = trips.values("pk").explain()
    assert "customer_id" not in columns


@pytest.mark.parametrize(
    "write",
    [
        lambda trips: trips.create(id=1),
        lambda trips: trips.model(id=1).save(using="lake"),
        lambda trips: trips.get(pk=2025_007).delete(),
        lambda trips: trips.filter(pk=1).delete(),
        lambda trips: trips.update(fare=1),
        lambda trips: trips.bulk_create([trips.model(id=1)]),
        lambda trips: trips.bulk_update([trips.get(pk=2025_007)], ["fare"]),
        lambda trips: trips.get_or_create(id=1),
        lambda trips: trips.update_or_create(id=2025_007, defaults={"fare": 1}),
        lambda trips: asyncio.run(trips.aupdate(fare=1)),
        lambda trips: bulk_load(trips.model, pyarrow.table({"id": [1]}), using="lake"),
    ],
)
def test_nothing_is_written(trips, write):
    with pytest.raises(ReadOnlyTable, match=r"shop\.Trip reads files"):
        write(trips)


def test_a_path_is_no_sql(lake):
    with isolate_apps("tests.shop"):
        for number, path in enumerate(
            ["x'); DROP TABLE shop_tag; --.parquet", "%s.parquet", '"$1.parquet', "a%%b.parquet"]
        ):
            pyarrow.parquet.write_table(pyarrow.table({"id": [number]}), lake.parent / path)
            attrs = {
                "__module__": __name__,
                "id": models.IntegerField(primary_key=True),
                "source": Parquet(lake.parent / path),
                "Meta": type("Meta", (), {"app_label": "shop"}),
            }
            model = type(f"Odd{number}", (FileModel,), attrs)
            assert model.objects.using("lake").filter(id__gte=0).values_list("id").get() == (
                number,
            )
    assert Tag.objects.using("lake").count() == 0


def test_what_the_settings_do_not_name_stays_closed(lake, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": [1]}), outside)
    with isolate_apps("tests.shop"):

        class Outside(FileModel):
            id = models.IntegerField(primary_key=True)
            source = Parquet(outside)

            class Meta:
                app_label = "shop"

            def __str__(self):
                return str(self.pk)

        with pytest.raises(ImproperlyConfigured, match=r"'external'\] does not name"):
            Outside.objects.using("lake").count()

        class Sneaky(FileModel):
            id = models.IntegerField(primary_key=True)
            source = Parquet(f"{lake}/../../{outside.parent.name}/a.parquet")

            class Meta:
                app_label = "shop"

            def __str__(self):
                return str(self.pk)

        with pytest.raises((DatabaseError, ImproperlyConfigured)):
            Sneaky.objects.using("lake").count()

        class Remote(FileModel):
            id = models.IntegerField(primary_key=True)
            source = Parquet("s3://bucket/*.parquet")

            class Meta:
                app_label = "shop"

            def __str__(self):
                return str(self.pk)

        with pytest.raises(ImproperlyConfigured, match="extension httpfs"):
            Remote.objects.using("lake").count()


@pytest.mark.django_db
@isolate_apps("tests.shop")
def test_checks_name_what_is_missing():
    class Bare(FileModel):
        class Meta:
            app_label = "shop"

        def __str__(self):
            return str(self.pk)

    assert [each.id for each in Bare.check()] == ["levada.E063", "levada.E064"]
    assert Bare._meta.managed is False
    assert Bare._meta.can_migrate(connections["default"]) is False


def test_csv_files_have_the_types_they_are_given(lake):
    (lake.parent / "one.csv").write_text("zip;n\n00700;1\n")
    (lake.parent / "two.csv").write_text("n;zip;more\n2;00800;x\n")
    with isolate_apps("tests.shop"):

        class Place(FileModel):
            zip = models.CharField(max_length=5, primary_key=True)
            n = models.IntegerField()
            more = models.TextField(null=True)  # noqa: DJ001
            filename = models.TextField()

            source = CSV(
                [lake.parent / "one.csv", lake.parent / "two.csv"],
                delimiter=";",
                header=True,
                types={"zip": "VARCHAR"},
                union_by_name=True,
                filename=True,
            )

            class Meta:
                app_label = "shop"

            def __str__(self):
                return self.zip

        places = Place.objects.using("lake").order_by("zip")
        assert list(places.values_list("zip", "n", "more")) == [
            ("00700", 1, None),
            ("00800", 2, "x"),
        ]
        assert places.get(n=2).filename.endswith("two.csv")


def test_a_view_is_a_model_like_any_other(lake):
    connections["lake"].connection.execute(
        "CREATE VIEW named AS SELECT id, upper(name) AS name FROM shop_customer"
    )
    with isolate_apps("tests.shop"):

        class Named(models.Model):
            name = models.TextField()

            class Meta:
                app_label = "shop"
                db_table = "named"
                managed = False

            def __str__(self):
                return self.name

        assert Named.objects.using("lake").get(name="ANA").pk == 1


def test_a_model_is_written_from_a_file(lake):
    path = str(lake / "*" / "*.parquet")
    text = model_source(Parquet(path, hive_partitioning=True), "Trip", using="lake")
    *text, source = text.splitlines(keepends=True)
    assert source == (
        f"    source = Parquet({path!r}, hive_partitioning=True, filename=True, row_number=True)\n"
    )
    text = "".join(text)
    assert (
        text
        == """\
from django.db import models

from levada.stores.duckdb.files import Parquet, FileModel


class Trip(FileModel):
    pk = models.CompositePrimaryKey("filename", "file_row_number")
    id = models.BigIntegerField(null=True)
    customer_id = models.BigIntegerField(null=True)
    fare = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    at = models.DateTimeField(null=True)
    file_row_number = models.BigIntegerField()
    filename = models.TextField()
    year = models.BigIntegerField(null=True)

"""
    )
    with isolate_apps("tests.shop"):
        names = {"__name__": "tests.shop.models"}
        exec(compile(text + source, "model", "exec"), names)
        trips = names["Trip"].objects.using("lake")
        assert names["Trip"].check() == []
        assert trips.filter(year=2024).aggregate(fare=Avg("fare"))["fare"] == Decimal("4.995")
        first = trips.order_by("filename", "file_row_number").first()
        assert first.pk == (str(lake / "year=2024" / "trips.parquet"), 0)
        assert trips.get(pk=first.pk).id == 2024_000
        assert trips.annotate(twice=F("fare") * 2).filter(twice=2).count() == 3


def test_a_model_is_written_from_a_csv(lake):
    path = lake.parent / "odd.csv"
    path.write_text("class,Order Total,n\n1,0.5,1\n1,0.75,2\n")
    text = model_source(CSV(str(path)), "Odd", using="lake")
    assert "class_field = models.BigIntegerField(null=True, db_column='class')" in text
    assert "order_total = models.FloatField(primary_key=True, db_column='Order Total')" in text
    path.write_text("n\n1\n1\n")
    with pytest.raises(ValueError, match="no column that differs"):
        model_source(CSV(str(path)), "Odd", using="lake")
    nested = lake.parent / "nested.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [[1]], "s": [{"x": 1}], "u": [b"x"]}), nested)
    text = model_source(Parquet(str(nested)), "Nested", using="lake")
    assert "a = ListField(models.BigIntegerField(), null=True)" in text
    assert "s = StructField({'x': models.BigIntegerField()}, null=True)" in text
    assert "from levada.stores.duckdb.fields import ListField, StructField\n" in text
    with isolate_apps("tests.shop"):
        names = {"__name__": "tests.shop.models"}
        exec(compile(text, "model", "exec"), names)
        (row,) = names["Nested"].objects.using("lake")
        assert (row.a, row.s) == ([1], {"x": 1})
