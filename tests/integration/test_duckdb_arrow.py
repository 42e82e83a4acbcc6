"""Querysets as Arrow, Polars, pandas and Parquet."""

import datetime
import gc
import sys
import uuid
from decimal import Decimal
from zoneinfo import ZoneInfo

import pandas
import polars
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
from django.db import DataError, NotSupportedError, connections, models, transaction
from django.db.models import Avg, Count, F, Max, Sum, Value, Window
from django.db.models.functions import Length, Rank, TruncDate, TruncMonth
from django.test.utils import CaptureQueriesContext, override_settings

import levada
from levada.stores.duckdb import arrow, ownership
from levada.stores.duckdb.loading import bulk_load
from levada.stores.duckdb.querysets import DuckDBManager
from tests.shop.models import Book, Customer, Everything, Order, OrderLine, Seat, Tag

from .duckdb_child import Child
from .object_storage import object_storage
from .test_duckdb_backend import UTC, duck, orders  # noqa: F401

VALUES = {
    "big": -(2**63),
    "small": -32768,
    "integer": 2**31 - 1,
    "positive": 2**63 - 1,
    "flag": False,
    "real": 0.1 + 0.2,
    "price": Decimal("12345678901.2345"),
    "char": "ça % ? $1 'q'",
    "text": "",
    "day": datetime.date(1, 1, 1),
    "clock": datetime.time(23, 59, 59, 999999),
    "moment": datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "span": datetime.timedelta(days=-3, microseconds=1),
    "ident": uuid.UUID(int=1),
    "blob": bytes(range(256)),
    "data": {"a": [1, None, "ü"]},
}
TYPES = {
    "id": pyarrow.int64(),
    "big": pyarrow.int64(),
    "small": pyarrow.int16(),
    "integer": pyarrow.int32(),
    "flag": pyarrow.bool_(),
    "real": pyarrow.float64(),
    "price": pyarrow.decimal128(15, 4),
    "char": pyarrow.string(),
    "day": pyarrow.date32(),
    "clock": pyarrow.time64("us"),
    "moment": pyarrow.timestamp("us", "UTC"),
    "span": pyarrow.duration("us"),
    "ident": pyarrow.string(),
    "blob": pyarrow.binary(),
    "data": pyarrow.string(),
}


def told(rows):
    """Return rows as sets of text, moments as they read in UTC: for comparing, in any order."""
    return sorted(
        str({name: getattr(value, "isoformat", value.__str__)() for name, value in row.items()})
        for row in rows
    )


def test_every_type_keeps_its_values(duck):  # noqa: F811
    Everything.objects.using("duck").create(**VALUES)
    Everything.objects.using("duck").create()
    table = Everything.objects.using("duck").order_by("pk").to_arrow()
    assert table.column_names == [field.attname for field in Everything._meta.concrete_fields]
    assert {name: table.schema.field(name).type for name in TYPES} == TYPES
    full, empty = table.to_pylist()
    texts = {"ident": str(VALUES["ident"]), "data": '{"a": [1, null, "\\u00fc"]}'}
    assert {name: full[name] for name in VALUES} == {**VALUES, **texts}
    assert {name for name in VALUES if empty[name] is not None} <= {"char", "text"}


def test_an_empty_answer_has_the_same_types(duck):  # noqa: F811
    everything = Everything.objects.using("duck")
    nothing = everything.none().to_arrow()
    everything.create(**VALUES)
    table = everything.to_arrow()
    assert (nothing.num_rows, nothing.schema) == (0, table.schema)
    for empty in (
        everything.filter(pk__in=[]),
        everything.all()[:0],
        everything.none().union(everything.none()),
        everything.values("pk").annotate(n=Count("big")).none(),
    ):
        assert empty.to_arrow().num_rows == 0
    assert everything.none().union(everything.none()).to_arrow().schema == table.schema


def test_the_columns_are_those_of_values(orders):  # noqa: F811
    for queryset in (
        orders.values("country", "customer", "customer__name"),
        orders.values("country").annotate(n=Count("pk"), sum=Sum("total"), mean=Avg("pk")),
        orders.annotate(day=TruncDate("placed_at"), month=TruncMonth("placed_at")).values(),
        orders.values(length=Length("country"), one=Value(1)).distinct(),
        orders.annotate(place=Window(Rank(), order_by=F("total").desc())).filter(place=2).values(),
        orders.extra(select={"twice": "total * 2"}).values(),
        orders.order_by("-total").values("number")[1:4],
        orders.dates("placed_at", "month").values("datefield"),
        orders.values("country").order_by("total").distinct(),
        orders.filter(total__gt=100).values("total", "placed_at"),
    ):
        table = queryset.to_arrow()
        rows = list(queryset)
        assert told(table.to_pylist()) == told(rows)
        assert not rows or table.column_names == list(rows[0])


def test_querysets_of_models_and_of_lists_are_taken(orders):  # noqa: F811
    assert orders.values_list("pk", flat=True).order_by("pk").to_arrow().to_pydict() == {
        "pk": [1, 2, 3, 4, 5, 6]
    }
    assert orders.select_related("customer").to_arrow().column_names == [
        "id", "customer_id", "number", "country", "total", "placed_at",
    ]  # fmt: skip
    assert orders.only("total").to_arrow().column_names == ["id", "total"]
    kept = orders.defer("number", "customer").annotate(n=Value(1)).to_arrow()
    assert kept.column_names == ["id", "country", "total", "placed_at", "n"]
    assert Book.objects.using("duck").to_arrow().column_names == [
        "id", "name", "price", "product_ptr_id", "isbn", "pages",
    ]  # fmt: skip


def test_combined_querysets_are_taken(orders):  # noqa: F811
    low, high = orders.filter(total__lte=20), orders.filter(total__gte=50)
    both = low.union(high).order_by("-total")
    assert [int(each) for each in both.to_arrow()["total"].to_pylist()] == [60, 50, 20, 10]
    assert both[1:3].to_arrow()["id"].to_pylist() == [order.pk for order in both[1:3]]
    names = low.values("country").union(high.values("country"), all=True)
    assert sorted(names.to_arrow()["country"].to_pylist()) == sorted(
        row["country"] for row in names
    )
    assert orders.difference(low).to_arrow().num_rows == 4


def test_a_composite_key_is_its_columns(duck):  # noqa: F811
    Seat.objects.using("duck").create(row="A", number=7)
    assert Seat.objects.using("duck").values("pk", "taken").to_arrow().to_pylist() == [
        {"row": "A", "number": 7, "taken": False}
    ]


def test_sums_and_durations_have_the_type_of_their_field(duck):  # noqa: F811
    rows = Everything.objects.using("duck")
    spans = [datetime.timedelta(days=5, seconds=n, microseconds=-n) for n in range(-3, 4)]
    rows.bulk_create([Everything(integer=n, span=span) for n, span in enumerate(spans)])
    rows.create()
    summed = rows.values("flag").annotate(
        n=Sum("integer"), real=Sum("integer", output_field=models.FloatField()), span=Max("span")
    )
    assert summed.to_arrow().to_pylist() == [
        {"flag": None, "n": 21, "real": 21.0, "span": max(spans)}
    ]
    table = rows.order_by("pk").values("span").to_arrow()
    assert table["span"].to_pylist() == [*spans, None]
    assert table.slice(2, 3)["span"].to_pylist() == spans[2:5]
    rows.bulk_create([Everything(big=2**63 - 1) for _ in range(2)])
    with pytest.raises(DataError, match="int64"):
        rows.values("flag").annotate(n=Sum("big")).to_arrow()


def test_the_zone_of_the_database_is_turned_into_utc(duck):  # noqa: F811
    moment = datetime.datetime(2026, 7, 1, 12, tzinfo=UTC)
    duck.settings_dict["TIME_ZONE"] = "Europe/Lisbon"
    for name in ("timezone", "timezone_name"):
        duck.__dict__.pop(name, None)
    Everything.objects.using("duck").create(moment=moment)
    assert (
        duck.connection.fetch_arrow("SELECT moment FROM shop_everything")[0][0].as_py().hour == 13
    )
    table = Everything.objects.using("duck").values("moment").to_arrow()
    assert table["moment"].to_pylist() == [moment]
    with override_settings(USE_TZ=False):
        table = Everything.objects.using("duck").values("moment").to_arrow()
        assert table.schema.field("moment").type == pyarrow.timestamp("us")
    assert moment.astimezone(ZoneInfo("Europe/Lisbon")).hour == 13


@pytest.fixture
def many(duck):  # noqa: F811
    duck.connection.execute(
        "INSERT INTO shop_orderline (id, order_id, sku, quantity, price) "
        "SELECT i, i % 100, 'sku ' || i, i % 7, i % 1000 FROM range(1, 200_001) AS t(i)"
    )
    return OrderLine.objects.using("duck")


def test_no_value_becomes_a_python_object(many):
    def allocated(run):
        run()  # what is made once: modules, caches
        gc.collect()
        gc.disable()
        try:
            before = sys.getallocatedblocks()
            held = run()
            return sys.getallocatedblocks() - before, held
        finally:
            gc.enable()

    blocks, table = allocated(many.to_arrow)
    rows, _ = allocated(lambda: list(many.values_list()))
    assert table.num_rows == 200_000
    assert blocks < 1_000
    assert rows > 500_000


def test_batches_come_one_by_one(many):
    reader = many.order_by("pk").to_arrow_batches(10_000)
    first = reader.read_next_batch()
    assert first.num_rows <= 10_000
    assert pyarrow.total_allocated_bytes() < 100_000_000
    assert Tag.objects.using("duck").count() == 0  # the rest is read to memory first
    rest = reader.read_all()
    assert first.num_rows + rest.num_rows == 200_000
    assert rest.column("id")[-1].as_py() == 200_000
    assert reader.schema == many.to_arrow().schema
    with pytest.raises(ValueError, match="batch_rows"):
        many.to_arrow_batches(0)


def test_batches_left_unread_are_no_obstacle(many):
    driver = connections["duck"].connection
    for _ in range(3):
        reader = many.to_arrow_batches(1_000)
        reader.read_next_batch()
        assert driver._reading is not None
        del reader
        assert driver._reading is None  # nobody wants the rest, so nobody keeps it
    assert many.count() == 200_000
    with transaction.atomic("duck"):
        Tag.objects.using("duck").create(name="new")
        reader = Tag.objects.using("duck").to_arrow_batches()
        assert reader.read_all()["name"].to_pylist() == ["new"]


def test_a_failure_amid_the_batches_is_djangos(many):
    broken = many.annotate(n=models.functions.Cast("sku", models.IntegerField()))
    with pytest.raises(DataError, match="sku"):
        broken.to_arrow()
    with pytest.raises(DataError, match="sku"):
        broken.to_arrow_batches(1_000).read_all()
    assert many.count() == 200_000


def test_frames_share_the_types(orders):  # noqa: F811
    frame = orders.order_by("pk").to_polars()
    assert isinstance(frame, polars.DataFrame)
    assert frame["total"].sum() == 210
    assert frame.schema["placed_at"] == polars.Datetime("us", "UTC")
    frame = orders.order_by("pk").to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["total"].sum() == Decimal(210)
    assert str(frame.dtypes["placed_at"]) == "timestamp[us, tz=UTC][pyarrow]"
    classic = orders.order_by("pk").to_pandas(arrow_types=False)
    assert str(classic.dtypes["placed_at"]) == "datetime64[us, UTC]"


def test_a_parquet_file_is_complete_or_absent(orders, tmp_path):  # noqa: F811
    path = tmp_path / "a 'b.parquet"
    assert orders.order_by("pk").to_parquet(path) == 6
    assert pyarrow.parquet.read_table(path).equals(orders.order_by("pk").to_arrow())
    with pytest.raises(FileExistsError, match="overwrite=True"):
        orders.to_parquet(path)
    assert orders.filter(pk=1).to_parquet(path, overwrite=True, compression="snappy") == 1
    broken = orders.annotate(n=models.functions.Cast("country", models.IntegerField()))
    with pytest.raises(DataError):
        broken.to_parquet(tmp_path / "broken.parquet")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_folder_is_partitioned(orders, tmp_path):  # noqa: F811
    folder = tmp_path / "lake"
    assert orders.to_parquet(folder, partition_by=["country"]) == 6
    assert {each.name for each in folder.iterdir()} == {"country=PT", "country=SE"}
    read = pyarrow.dataset.dataset(folder, partitioning="hive").to_table()
    assert sorted(read["id"].to_pylist()) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(FileExistsError):
        orders.to_parquet(folder, partition_by=["country"])
    with pytest.raises(ValueError, match="no column 'land'"):
        orders.to_parquet(tmp_path / "other", partition_by=["land"])


@pytest.mark.django_db
def test_another_database_is_refused_by_name():
    for method in ("to_arrow", "to_arrow_batches", "to_polars", "to_pandas"):
        with pytest.raises(NotSupportedError, match="needs DuckDB"):
            getattr(Tag.objects.using("default"), method)()
    with pytest.raises(TypeError, match="fetch_arrow"):
        arrow.to_arrow(Tag.objects.raw("SELECT 1 AS id"))


def test_a_projects_own_method_stays(duck):  # noqa: F811
    class Own(models.QuerySet):
        def to_arrow(self):
            return "mine"

    assert Own(Customer, using="duck").to_arrow() == "mine"
    assert arrow.to_arrow(Own(Customer, using="duck")).num_rows == 0
    manager = DuckDBManager()
    manager.model = Customer
    assert manager.using("duck").to_arrow().num_rows == 0


def test_queries_are_counted_and_guarded_as_any_other(orders):  # noqa: F811
    with CaptureQueriesContext(connections["duck"]) as captured:
        orders.to_arrow()
        orders.to_arrow_batches().read_all()
    assert len(captured) == 2
    with transaction.atomic("duck"):
        transaction.set_rollback(True, "duck")
        with pytest.raises(transaction.TransactionManagementError):
            orders.to_arrow()


def test_a_process_that_does_not_own_the_file_gets_the_same(django_db_blocker, tmp_path):
    path = tmp_path / "shared.duckdb"
    owner = Child(path)
    try:
        owner("run", "CREATE TABLE shop_tag (id BIGINT, name VARCHAR)")
        owner("run", "INSERT INTO shop_tag SELECT i, 'tag ' || i FROM range(300_000) AS t(i)")
        with django_db_blocker.unblock():
            connections.databases["client"] = connections.configure_settings(
                {"default": {}, "client": {"ENGINE": "levada.stores.duckdb", "NAME": str(path)}}
            )["client"]
            try:
                tags = Tag.objects.using("client").order_by("pk")
                assert tags.to_arrow()["id"].to_pylist() == list(range(300_000))
                reader = tags.to_arrow_batches(50_000)
                first = reader.read_next_batch()
                assert tags.filter(pk=7).values_list("name", flat=True).get() == "tag 7"
                rest = reader.read_all()
                assert first["id"].to_pylist() + rest["id"].to_pylist() == list(range(300_000))
                assert tags.to_parquet(tmp_path / "tags.parquet") == 300_000
                assert not ownership.owns(str(path))
                reader = tags.to_arrow_batches(1_000)
                reader.read_next_batch()
                owner.kill()
                with pytest.raises(Exception, match="Run the transaction again"):
                    reader.read_all()
                assert tags.to_arrow().num_rows == 300_000
            finally:
                connections["client"].close()
                ownership.release(str(path))
                del connections["client"], connections.databases["client"]
    finally:
        owner.kill()
        owner.end()


def test_parquet_lies_on_object_storage(orders, monkeypatch):  # noqa: F811
    with object_storage(monkeypatch) as storage:
        assert orders.order_by("pk").to_parquet("s3://lake/all/orders.parquet") == 6
        assert orders.to_parquet("s3://lake/parts", partition_by=["country"]) == 6
        assert storage.folders() == [
            "/lake/all", "/lake/parts/country=PT", "/lake/parts/country=SE",
        ]  # fmt: skip
        with pytest.raises(FileExistsError):
            orders.to_parquet("s3://lake/all/orders.parquet")
        with pytest.raises(FileExistsError):
            orders.to_parquet("s3://lake/parts", partition_by=["country"])
        broken = orders.annotate(n=models.functions.Cast("country", models.IntegerField()))
        with pytest.raises(DataError):
            broken.to_parquet("s3://lake/broken/a.parquet")
        assert "/lake/broken" not in storage.folders()
        orders.all().delete()
        kept = {"ignore_extra": True, "using": "duck"}
        assert bulk_load(Order, "s3://lake/all/*.parquet", **kept) == 6
        Order.objects.using("duck").all().delete()
        assert bulk_load(Order, "s3://lake/parts", **kept) == 6
        with pytest.raises(FileNotFoundError, match="s3://lake/none"):
            bulk_load(Order, "s3://lake/none/*.parquet", **kept)
    assert orders.filter(country="PT").count() == 4


def test_a_replica_gives_what_it_holds(duck):  # noqa: F811
    with override_settings(
        LEVADA={"REPLICATE": {"duck": {"shop.Customer": {"exclude": ["email"]}}}}
    ):
        Customer.objects.using("duck").create(name="Ana")
        table = levada.replica(Customer).filter(name="Ana").to_arrow()
    assert table.column_names == ["id", "name", "password", "country", "created_at"]
