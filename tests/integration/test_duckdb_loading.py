"""bulk_load: rows of every kind into a table, strictly, at once or not at all."""

import datetime
import uuid
from decimal import Decimal

import pandas
import polars
import pyarrow
import pyarrow.csv
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet
import pytest
from django.db import IntegrityError, NotSupportedError, connections, models, transaction
from django.test.utils import isolate_apps, override_settings
from django.utils import timezone

from levada.errors import ReadOnlyTable, UnfitRows
from levada.stores.duckdb import loading, ownership
from levada.stores.duckdb.fields import ListField, MapField, StructField
from levada.stores.duckdb.loading import bulk_load
from tests.shop.models import Book, Customer, Everything, Order, OrderLine, Product, Seat, Tag

from .duckdb_child import Child
from .test_duckdb_arrow import VALUES
from .test_duckdb_backend import UTC, duck  # noqa: F401


def lines(count=5, **columns):
    return pyarrow.table(
        {
            "order_id": range(count),
            "sku": [f"sku-{n}" for n in range(count)],
            "quantity": range(count),
            "price": pyarrow.array(
                [Decimal(n) / 4 for n in range(count)], pyarrow.decimal128(10, 2)
            ),
            **columns,
        }
    )


def loaded(using="duck"):
    rows = OrderLine.objects.using(using).order_by("order_id")
    return list(rows.values_list("order_id", "sku", "quantity", "price"))


EXPECTED = [(n, f"sku-{n}", n, Decimal(n) / 4) for n in range(5)]


def written(tmp_path, suffix):
    """Write five lines in the format of `suffix` and return the path."""
    path = tmp_path / f"lines{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(lines(), path)
    elif suffix == ".csv":
        pyarrow.csv.write_csv(lines(), path)
    elif suffix == ".csv.gz":
        with pyarrow.CompressedOutputStream(str(path), "gzip") as stream:
            pyarrow.csv.write_csv(lines(), stream)
    else:
        pyarrow.feather.write_feather(lines(), str(path))
    return path


SOURCES = {
    "table": lambda tmp_path: lines(),
    "batch": lambda tmp_path: lines().to_batches()[0],
    "reader": lambda tmp_path: lines().to_reader(2),
    "dataset": lambda tmp_path: pyarrow.dataset.dataset(lines()),
    "pandas": lambda tmp_path: lines().to_pandas(types_mapper=pandas.ArrowDtype),
    "classic pandas": lambda tmp_path: lines().to_pandas(),
    "polars": lambda tmp_path: polars.from_arrow(lines()),
    "parquet": lambda tmp_path: written(tmp_path, ".parquet"),
    "feather": lambda tmp_path: str(written(tmp_path, ".feather")),
    "csv": lambda tmp_path: written(tmp_path, ".csv"),
    "csv.gz": lambda tmp_path: written(tmp_path, ".csv.gz"),
    "address": lambda tmp_path: written(tmp_path, ".parquet").as_uri(),
    "pattern": lambda tmp_path: str(written(tmp_path, ".parquet").parent / "l*.parquet"),
    "address pattern": lambda tmp_path: written(tmp_path, ".csv").parent.as_uri() + "/*s.csv",
    "folder": lambda tmp_path: written(tmp_path, ".parquet").parent,
    "folder's address": lambda tmp_path: written(tmp_path, ".parquet").parent.as_uri(),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_rows_come_from_anywhere(duck, tmp_path, kind):  # noqa: F811
    assert bulk_load(OrderLine, SOURCES[kind](tmp_path), using="duck") == 5
    assert loaded() == EXPECTED


def test_every_type_is_taken_as_to_arrow_gives_it(duck):  # noqa: F811
    everything = Everything.objects.using("duck")
    everything.create(**VALUES)
    everything.create()
    table = everything.to_arrow().drop_columns(["id"])
    assert bulk_load(Everything, table, using="duck") == 2
    one, other = everything.filter(pk__gt=2).order_by("pk")
    assert {name: getattr(one, name) for name in VALUES} == VALUES
    assert {getattr(other, name) for name in VALUES if name not in ("char", "text")} == {None}


def test_text_of_a_csv_becomes_every_type(duck, tmp_path):  # noqa: F811
    path = tmp_path / "all.csv"
    values = {
        "big": "-7", "flag": "true", "real": "0.5", "price": "12.5000", "char": "007",
        "text": '""', "day": "2026-03-01", "clock": "12:30:00", "moment": "2026-03-01T12:00:00Z",
        "ident": str(uuid.UUID(int=3)), "data": '"{""a"": 1}"', "small": "",
    }  # fmt: skip
    path.write_text(f"{','.join(values)}\n{','.join(values.values())}\n")
    bulk_load(Everything, path, using="duck")
    row = Everything.objects.using("duck").get()
    assert {name: getattr(row, name) for name in values} == {
        "big": -7, "flag": True, "real": 0.5, "price": Decimal("12.5"), "char": "007",
        "text": "", "day": datetime.date(2026, 3, 1), "clock": datetime.time(12, 30),
        "moment": datetime.datetime(2026, 3, 1, 12, tzinfo=UTC),
        "ident": uuid.UUID(int=3), "data": {"a": 1}, "small": None,
    }  # fmt: skip


def test_columns_are_found_by_field_or_column_in_any_order(duck):  # noqa: F811
    table = lines().select(["price", "sku", "order_id", "quantity"])
    bulk_load(OrderLine, table.rename_columns(["price", "sku", "order", "quantity"]), using="duck")
    assert loaded() == EXPECTED
    extra = lines(colour=["red"] * 5)
    with pytest.raises(UnfitRows, match=r"column 'colour'.*ignore_extra") as raised:
        bulk_load(OrderLine, extra, using="duck")
    assert (raised.value.column, raised.value.row) == ("colour", None)
    assert bulk_load(OrderLine, extra, using="duck", ignore_extra=True) == 5
    with pytest.raises(UnfitRows, match=r"two columns for shop\.OrderLine\.order"):
        bulk_load(OrderLine, lines(order=range(5)), using="duck")
    with pytest.raises(
        UnfitRows, match=r"no column for shop\.OrderLine\.sku, which has no default"
    ):
        bulk_load(OrderLine, lines().drop_columns(["sku"]), using="duck")


def test_missing_columns_take_their_defaults(duck):  # noqa: F811
    bulk_load(OrderLine, pyarrow.table({"order": [1, 2], "sku": ["a", "b"]}), using="duck")
    assert list(OrderLine.objects.using("duck").values_list("pk", "quantity", "price")) == [
        (1, 1, 0),
        (2, 1, 0),
    ]
    bulk_load(Order, pyarrow.table({"customer_id": [1, 2, 3]}), using="duck")
    orders = Order.objects.using("duck")
    assert len({order.number for order in orders}) == 3
    assert all(isinstance(order.number, uuid.UUID) for order in orders)
    assert {(order.country, order.total, order.placed_at) for order in orders} == {("PT", 0, None)}
    assert bulk_load(Tag, pyarrow.table({"name": ["x"]}), using="duck") == 1
    assert Tag.objects.using("duck").create(name="y").pk == 2


@isolate_apps("tests.shop")
def test_defaults_of_every_kind(duck):  # noqa: F811
    drawn = iter(range(10, 20))

    class Note(models.Model):
        text = models.CharField(max_length=9)
        number = models.IntegerField(default=lambda: next(drawn))
        made_at = models.DateTimeField(auto_now_add=True)
        seen_at = models.DateTimeField(default=timezone.now)
        day = models.DateField(auto_now=True)
        data = models.JSONField(default=dict)
        names = ListField(models.CharField(max_length=9), default=list)
        shape = StructField({"a": models.IntegerField()}, default={"a": 1})
        tags = MapField(models.CharField(max_length=9), models.IntegerField(), default=dict)
        kind = models.CharField(max_length=9, db_default="new")

        class Meta:
            app_label = "shop"

        def __str__(self):
            return self.text

    with duck.schema_editor() as editor:
        editor.create_model(Note)
    before = timezone.now()
    bulk_load(Note, pyarrow.table({"text": ["a", "b"]}), using="duck")
    notes = Note.objects.using("duck").order_by("pk")
    assert [note.number for note in notes] == [10, 11]
    assert {(note.made_at >= before, note.seen_at >= before) for note in notes} == {(True, True)}
    assert {note.day for note in notes} == {before.date()}
    assert [(n.data, n.names, n.shape, n.tags, n.kind) for n in notes] == [
        ({}, [], {"a": 1}, {}, "new")
    ] * 2
    nested = pyarrow.table(
        {
            "text": ["c"],
            "names": [["x", "y"]],
            "shape": [{"a": 7}],
            "tags": pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int32())),
        }
    )
    bulk_load(Note, nested, using="duck")
    note = notes.get(text="c")
    assert (note.names, note.shape, note.tags) == (["x", "y"], {"a": 7}, {"k": 1})


UNFIT = {
    "integer": ["1", "many"],
    "small": [1, 40_000],
    "big": [1.0, 2.5],
    "flag": [1, 2],
    "real": [1, 2**60 + 1],
    "price": [0.25, 1.00001],
    "day": [datetime.datetime(2026, 1, 1), datetime.datetime(2026, 1, 1, 12)],
    "moment": ["2026-01-01T00:00:00Z", "yesterday"],
    "clock": ["12:00:00", "25:00:00"],
    "span": [datetime.timedelta(1), "soon"],
    "ident": [str(uuid.UUID(int=1)), "no uuid"],
    "data": ["{}", "{no json"],
    "char": ["a", datetime.date(2026, 1, 1)],
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_value_that_would_change_is_named(duck, name):  # noqa: F811
    good, bad = UNFIT[name]
    if isinstance(bad, type(good)) or {type(good), type(bad)} <= {int, float}:
        column = pyarrow.array([good] * 6 + [bad] + [good])
    else:
        column = pyarrow.array([bad] * 8)
    row = 7 if column[0].as_py() == good else 1
    table = pyarrow.table({name: column, "slug": ["x"] * 8})
    with pytest.raises(UnfitRows, match=f"Row {row} has .*Everything.{name}") as raised:
        bulk_load(Everything, table, using="duck")
    assert (raised.value.column, raised.value.row) == (name, row)
    assert not Everything.objects.using("duck").exists()
    if row == 7:
        assert bulk_load(Everything, table[7:], using="duck") == 1
    assert bulk_load(Everything, table[:0], using="duck") == 0


def test_the_row_is_counted_over_all_chunks(duck, monkeypatch):  # noqa: F811
    monkeypatch.setattr(loading, "CHUNK_ROWS", 10)
    table = pyarrow.table({"ident": [str(uuid.UUID(int=n)) for n in range(35)] + ["bad"]})
    with pytest.raises(UnfitRows, match="Row 36 has 'bad'"):
        bulk_load(Everything, table.to_reader(5), using="duck")
    assert not Everything.objects.using("duck").exists()
    assert bulk_load(Everything, table[:35].to_reader(5), using="duck") == 35


def test_null_has_its_row(duck):  # noqa: F811
    with pytest.raises(UnfitRows, match="Row 3 has no value in the column 'sku'"):
        bulk_load(OrderLine, lines(sku=["a", "b", None, "d", None]), using="duck")


def test_constraints_say_no(duck):  # noqa: F811
    with pytest.raises(IntegrityError):
        bulk_load(OrderLine, lines(quantity=[-1, 0, 1, 2, 3]), using="duck")
    with pytest.raises(IntegrityError):
        bulk_load(Tag, pyarrow.table({"name": ["a", "a"]}), using="duck")
    assert not Tag.objects.using("duck").exists()
    assert bulk_load(Tag, pyarrow.table({"name": ["a"]}), using="duck") == 1


def test_it_joins_the_open_transaction(duck):  # noqa: F811
    def load_and_fail():
        with transaction.atomic("duck"):
            Tag.objects.using("duck").create(name="first")
            bulk_load(Tag, pyarrow.table({"name": ["a", "b"]}), using="duck")
            assert Tag.objects.using("duck").count() == 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_and_fail()
    assert not Tag.objects.using("duck").exists()
    with transaction.atomic("duck"):
        Tag.objects.using("duck").create(name="first")
        with pytest.raises(UnfitRows):
            bulk_load(Tag, pyarrow.table({"name": ["a", None]}), using="duck")
        assert bulk_load(Tag, pyarrow.table({"name": ["b"]}), using="duck") == 1
    assert Tag.objects.using("duck").count() == 2


def test_moments_are_stored_in_the_zone_of_the_database(duck):  # noqa: F811
    moment = datetime.datetime(2026, 7, 1, 12, tzinfo=UTC)
    duck.settings_dict["TIME_ZONE"] = "Europe/Lisbon"
    for name in ("timezone", "timezone_name"):
        duck.__dict__.pop(name, None)
    bulk_load(Everything, pyarrow.table({"moment": [moment]}), using="duck")
    assert Everything.objects.using("duck").get().moment == moment


def test_composite_keys_are_columns(duck):  # noqa: F811
    table = pyarrow.table({"row": ["A", "A"], "number": [1, 2]})
    assert bulk_load(Seat, table, using="duck") == 2
    assert Seat.objects.using("duck").get(pk=("A", 2)).taken is False


def test_what_is_no_table_of_ours_is_refused(duck):  # noqa: F811
    with pytest.raises(NotSupportedError, match="multi-table"):
        bulk_load(Book, pyarrow.table({"isbn": ["x"]}), using="duck")
    with override_settings(LEVADA={"REPLICATE": {"duck": ["shop.Order"]}}):
        for model in (Order, Order.tags.through):
            with pytest.raises(ReadOnlyTable, match=f"{model.__name__} is replicated to 'duck'"):
                bulk_load(model, pyarrow.table({"id": [1]}), using="duck")
    with pytest.raises(NotSupportedError, match="needs DuckDB"):
        bulk_load(Tag, pyarrow.table({"name": ["x"]}), using="default")
    with pytest.raises(TypeError, match="bulk_create"):
        bulk_load(Tag, [Tag(name="x")], using="duck")


def test_files_that_are_not_there_or_not_known_are_named(duck, tmp_path):  # noqa: F811
    for missing in (tmp_path / "no.parquet", f"{tmp_path}/*.csv", tmp_path.as_uri() + "/*.parquet"):
        with pytest.raises(FileNotFoundError, match="no file at"):
            bulk_load(Tag, missing, using="duck")
    (tmp_path / "tags.xlsx").write_text("x")
    with pytest.raises(ValueError, match=r"no file that bulk_load\(\) reads"):
        bulk_load(Tag, tmp_path / "tags.xlsx", using="duck")
    for name in ("a.csv", "b.parquet"):
        (tmp_path / name).write_text("name\n")
    with pytest.raises(ValueError, match="several formats"):
        bulk_load(Tag, f"{tmp_path}/?.*", using="duck")
    (tmp_path / "c.csv").write_text("other\n1\n")
    with pytest.raises(ValueError, match="other columns"):
        bulk_load(Tag, f"{tmp_path}/?.csv", using="duck")


def test_partitions_are_columns(duck, tmp_path):  # noqa: F811
    table = pyarrow.table({"name": ["Ana", "Bo"], "country": ["PT", "SE"]})
    pyarrow.dataset.write_dataset(
        table, tmp_path, format="parquet", partitioning=["country"], partitioning_flavor="hive"
    )
    assert bulk_load(Customer, tmp_path, using="duck") == 2
    found = Customer.objects.using("duck").order_by("name").values_list("name", "country", "email")
    assert list(found) == [("Ana", "PT", ""), ("Bo", "SE", "")]


def test_a_process_that_does_not_own_the_file_loads_as_well(django_db_blocker, tmp_path):
    path = tmp_path / "shared.duckdb"
    owner = Child(path)
    try:
        owner("run", "CREATE TABLE shop_product (id BIGINT, name VARCHAR, price DECIMAL(10, 2))")
        with django_db_blocker.unblock():
            connections.databases["client"] = connections.configure_settings(
                {"default": {}, "client": {"ENGINE": "levada.stores.duckdb", "NAME": str(path)}}
            )["client"]
            try:
                table = pyarrow.table({"id": range(200_000), "name": ["x"] * 200_000})
                assert bulk_load(Product, table, using="client") == 200_000
                assert not ownership.owns(str(path))
                assert Product.objects.using("client").filter(price=0).count() == 200_000
            finally:
                connections["client"].close()
                del connections["client"], connections.databases["client"]
    finally:
        owner.end()
