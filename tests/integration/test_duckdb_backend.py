"""The DuckDB backend through Django's public face: migrations, the ORM, raw SQL, Arrow."""

import datetime
import hashlib
import json
import sys
import uuid
from contextlib import closing
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import (
    DEFAULT_DB_ALIAS,
    ConnectionHandler,
    DataError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    connections,
    models,
    transaction,
)
from django.db.models import (
    Avg,
    Case,
    Count,
    F,
    Max,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.functions import (
    SHA512,
    Cast,
    Coalesce,
    Collate,
    Concat,
    ExtractIsoWeekDay,
    ExtractWeekDay,
    Length,
    Now,
    Rank,
    Substr,
    TruncDate,
    TruncHour,
    TruncMonth,
    Upper,
)
from django.test.utils import override_settings
from django.utils import timezone

from tests.shop.models import Customer, Everything, Order, OrderLine, Product, Tag

UTC = datetime.UTC
SHOP = [Customer, Tag, Order, OrderLine, Product, Everything]


@pytest.fixture
def duck(django_db_blocker):
    """An alias `duck` with a fresh database in memory that holds the shop and django.contrib."""
    with django_db_blocker.unblock():
        connections.databases["duck"] = connections.configure_settings(
            {
                DEFAULT_DB_ALIAS: {},
                "duck": {"ENGINE": "levada.stores.duckdb", "NAME": f":memory:{uuid.uuid4().hex}"},
            }
        )["duck"]
        connection = connections["duck"]
        call_command("migrate", database="duck", verbosity=0)
        yield connection
        connection.close()
        connection.creation._destroy_test_db(connection.settings_dict["NAME"], 0)
        del connections["duck"], connections.databases["duck"]


@pytest.fixture
def orders(duck):
    """Three customers, six orders of 10 … 60 in two countries, two lines each."""
    customers = [
        Customer.objects.using("duck").create(name=name, country=country)
        for name, country in (("Ana", "PT"), ("Bo", "SE"), ("Cy", "PT"))
    ]
    for number in range(1, 7):
        customer = customers[number % 3]
        order = Order.objects.using("duck").create(
            customer=customer,
            country=customer.country,
            total=Decimal(number * 10),
            placed_at=datetime.datetime(2026, number, 28, 23, 30, tzinfo=UTC),
        )
        for line in range(2):
            OrderLine.objects.using("duck").create(
                order=order, sku=f"sku-{number}-{line}", quantity=number, price=Decimal("2.50")
            )
    return Order.objects.using("duck")


def test_every_app_migrates_forward_and_back(duck):
    assert {"auth_user", "shop_order", "shop_order_tags"} <= set(duck.introspection.table_names())
    call_command("migrate", "shop", "zero", database="duck", verbosity=0)
    assert "shop_order" not in duck.introspection.table_names()
    call_command("migrate", "auth", "0001", database="duck", verbosity=0)
    call_command("migrate", database="duck", verbosity=0)
    assert ContentType.objects.using("duck").filter(app_label="shop").count() == 8
    assert Permission.objects.using("duck").filter(codename="add_order").exists()


def test_a_replica_leaves_replicated_tables_to_the_applier(duck):
    with override_settings(LEVADA={"REPLICATE": {"duck": ["shop.Tag"]}}):
        call_command("migrate", "shop", "zero", database="duck", verbosity=0)
        assert "shop_tag" in duck.introspection.table_names()
    with duck.cursor() as cursor:
        cursor.execute("DROP TABLE shop_tag")
    with override_settings(LEVADA={"REPLICATE": {"duck": ["shop.Order"]}}):
        call_command("migrate", "shop", database="duck", verbosity=0)
        tables = duck.introspection.table_names()
    assert "shop_order" not in tables
    assert "shop_order_tags" not in tables
    assert "shop_customer" in tables


def test_rows_are_created_read_updated_and_deleted(duck):
    tag = Tag.objects.using("duck").create(name="new")
    assert tag.pk == 1
    tag.name = "old"
    tag.save()
    assert Tag.objects.using("duck").get(name="old") == tag
    assert Tag.objects.using("duck").filter(pk=tag.pk).update(name="older") == 1
    assert Tag.objects.using("duck").get_or_create(name="older")[1] is False
    assert Tag.objects.using("duck").filter(name="older").delete()[0] == 1
    assert not Tag.objects.using("duck").exists()


def test_a_second_row_with_a_unique_value_is_an_integrity_error(duck):
    Tag.objects.using("duck").create(name="new")
    with pytest.raises(IntegrityError):
        Tag.objects.using("duck").create(name="new")
    with pytest.raises(IntegrityError):
        OrderLine.objects.using("duck").create(order_id=1, sku="x", quantity=-1)


def test_every_type_comes_back_as_it_went(duck):
    values = {
        "big": -(2**63),
        "small": -32768,
        "integer": 2**31 - 1,
        "positive": 2**63 - 1,
        "flag": False,
        "real": 0.1 + 0.2,
        "price": Decimal("12345678901.2345"),
        "char": "ça % ? $1 'q' \"d\" \\ 🦆",
        "text": "",
        "slug": "a-b",
        "url": "https://example.com/?a=1",
        "ip": "::1",
        "file": "a/b.txt",
        "day": datetime.date(1, 1, 1),
        "clock": datetime.time(23, 59, 59, 999999),
        "moment": datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        "span": datetime.timedelta(days=-3, microseconds=1),
        "ident": uuid.UUID(int=1),
        "blob": bytes(range(256)),
        "data": {"a": [1, 2.5, None, "ü"], "b": {"c": True}},
    }
    for made in (
        Everything.objects.using("duck").create(**values),
        Everything.objects.using("duck").bulk_create([Everything(**values) for _ in range(40)])[39],
    ):
        read = Everything.objects.using("duck").get(pk=made.pk)
        assert {name: getattr(read, name) for name in values} == values
    assert Everything.objects.using("duck").filter(**values).count() == 41
    empty = Everything.objects.using("duck").create()
    read = Everything.objects.using("duck").get(pk=empty.pk)
    assert all(getattr(read, name) in (None, "") for name in values)


def test_bulk_create_gives_each_object_its_own_key_in_order(duck):
    tags = Tag.objects.using("duck").bulk_create([Tag(name=f"t{i}") for i in range(10_000)])
    assert [tag.pk for tag in tags] == list(range(1, 10_001))
    assert Tag.objects.using("duck").get(pk=5_000).name == "t4999"
    with pytest.raises(IntegrityError):
        Tag.objects.using("duck").bulk_create([Tag(name=f"t{i}") for i in range(9_990, 10_050)])
    ignored = [Tag(name=f"t{i}") for i in range(9_990, 10_050)]
    Tag.objects.using("duck").bulk_create(ignored, ignore_conflicts=True)
    assert Tag.objects.using("duck").count() == 10_050


def test_bulk_create_updates_on_conflict(duck):
    Product.objects.using("duck").bulk_create([Product(id=i, name="a") for i in range(50)])
    Product.objects.using("duck").bulk_create(
        [Product(id=i, name="b", price=i) for i in range(40, 90)],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["name", "price"],
    )
    assert Product.objects.using("duck").filter(name="b").count() == 50
    assert Product.objects.using("duck").get(id=45).price == 45


def test_lookups_take_patterns_literally(duck):
    for name in ("100% _pure\\", "Other", "ÉTÉ"):
        Customer.objects.using("duck").create(name=name)
    names = Customer.objects.using("duck")
    assert names.filter(name__contains="0% _p").count() == 1
    assert names.filter(name__contains="%").count() == 1
    assert names.filter(name__endswith="\\").count() == 1
    assert names.filter(name__startswith="o").count() == 0
    assert names.filter(name__istartswith="o").count() == 1
    assert names.filter(name__iexact="été").count() == 1
    assert names.filter(name__regex=r"^\d{3}%").count() == 1
    assert names.filter(name__iregex="^OTH").count() == 1
    assert names.filter(name__in=["Other", "none"]).count() == 1
    assert names.filter(id__contains=1).count() == 1
    assert names.filter(name__contains=F("name")).count() == 3


def test_joins_aggregates_and_orders(orders):
    by_country = orders.values("country").annotate(n=Count("id"), sum=Sum("total"))
    assert list(by_country.order_by("country").values_list("country", "n", "sum")) == [
        ("PT", 4, Decimal(160)),
        ("SE", 2, Decimal(50)),
    ]
    lines = OrderLine.objects.using("duck").filter(order__customer__country="PT")
    worth = lines.aggregate(worth=Sum(F("price") * F("quantity")), mean=Avg("quantity"))
    assert worth == {"worth": Decimal(80), "mean": 4.0}
    top = Customer.objects.using("duck").annotate(spent=Sum("orders__total")).order_by("-spent")
    assert [(each.name, each.spent) for each in top] == [("Ana", 90), ("Cy", 70), ("Bo", 50)]
    assert orders.aggregate(Max("total"))["total__max"] == 60


def test_a_grouped_expression_with_parameters_is_one_expression(orders):
    bands = orders.annotate(
        band=Case(When(total__gte=40, then=Value("high")), default=Value("low"))
    ).values("band")
    counted = bands.annotate(n=Count("id")).filter(n__gt=1).order_by("band")
    assert list(counted.values_list("band", "n")) == [("high", 3), ("low", 3)]
    labels = orders.annotate(label=Concat("country", Value("-x"))).values("label").distinct()
    assert sorted(each["label"] for each in labels.order_by("label")) == ["PT-x", "SE-x"]


def test_windows_subqueries_and_distinct_on(orders):
    ranked = orders.annotate(
        place=Window(Rank(), partition_by=[F("country")], order_by=F("total").desc())
    ).filter(place=1)
    assert {(each.country, each.total) for each in ranked} == {("PT", 60), ("SE", 40)}
    latest = orders.filter(customer=OuterRef("pk")).order_by("-placed_at").values("total")[:1]
    found = Customer.objects.using("duck").annotate(last=Subquery(latest)).order_by("last")
    assert [each.last for each in found] == [40, 50, 60]
    firsts = orders.order_by("country", "-total").distinct("country")
    assert [each.country for each in firsts] == ["PT", "SE"]
    assert orders.filter(Q(total__lt=20) | Q(total__gt=50)).count() == 2


def test_distinct_on_takes_the_lowest_key_of_equal_rows(duck):
    Tag.objects.using("duck").bulk_create(Tag(name=f"{n:05}") for n in range(20_000))
    last = Tag.objects.using("duck").annotate(end=Substr("name", 4))
    lowest = [f"{n:05}" for n in range(100)]
    assert [tag.name for tag in last.distinct("end")] == lowest
    assert [tag.name for tag in last.distinct("end").order_by("-end")] == lowest[::-1]


def test_text_is_compared_by_a_collation(duck):
    Tag.objects.using("duck").bulk_create(Tag(name=name) for name in ("b", "A", "ö", "P"))
    tags = Tag.objects.using("duck")
    assert tags.get(name=Collate(Value("a"), "nocase")).name == "A"
    by = {
        name: "".join(tags.order_by(Collate("name", name)).values_list("name", flat=True))
        for name in ("binary", "nocase", "sv", "de")
    }
    assert by == {"binary": "APbö", "nocase": "AbPö", "sv": "AbPö", "de": "AböP"}


def test_integers_divide_as_in_the_source(duck):
    Product.objects.using("duck").create(name="seven", price=7)
    row = Product.objects.using("duck").annotate(
        half=Value(7) / Value(2), rest=F("id") % 2, power=Value(2) ** Value(3)
    )
    assert row.values_list("half", "rest", "power").get() == (3, 1, 8)


def test_dates_truncate_and_extract_in_the_given_zone(orders):
    months = orders.annotate(month=TruncMonth("placed_at")).values("month")
    assert months.annotate(n=Count("id")).count() == 6
    lisbon = ZoneInfo("Europe/Lisbon")
    july = orders.create(
        customer_id=1, placed_at=datetime.datetime(2026, 7, 31, 23, 30, tzinfo=UTC)
    )
    row = orders.filter(pk=july.pk).annotate(
        utc=TruncDate("placed_at"),
        local=TruncDate("placed_at", tzinfo=lisbon),
        hour=TruncHour("placed_at", tzinfo=lisbon),
        offset=TruncDate("placed_at", tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        week_day=ExtractWeekDay("placed_at"),
        iso=ExtractIsoWeekDay("placed_at", tzinfo=lisbon),
    )
    got = row.values_list("utc", "local", "hour", "offset", "week_day", "iso").get()
    assert got == (
        datetime.date(2026, 7, 31),
        datetime.date(2026, 8, 1),
        datetime.datetime(2026, 8, 1, 0, 0, tzinfo=lisbon),
        datetime.date(2026, 8, 1),
        6,
        6,
    )
    assert orders.filter(placed_at__month=7).count() == 1
    assert orders.dates("placed_at", "month").count() == 7


def test_json_is_looked_into(duck):
    rows = Everything.objects.using("duck")
    rows.create(data={"a": {"b": [1, 2, {"c": "x"}]}, "n": 5, "t": "ü", "nil": None})
    rows.create(data=[1, 2, 3])
    assert rows.filter(data__a__b__2__c="x").count() == 1
    assert rows.filter(data__n__gt=4).count() == 1
    assert rows.filter(data__t="ü").count() == 1
    assert rows.filter(data__t__icontains="Ü").count() == 1
    assert rows.filter(data__has_key="n").count() == 1
    assert rows.filter(data__has_any_keys=["zz", "n"]).count() == 1
    assert rows.filter(data__nil__isnull=False).count() == 1
    assert rows.filter(data__contains={"n": 5}).count() == 1
    assert rows.filter(data=[1, 2, 3]).count() == 1
    assert rows.filter(data__n__in=[4, 5]).count() == 1
    assert rows.values_list("data__a__b__0", flat=True).filter(data__has_key="a").get() == 1


def test_a_failed_block_leaves_nothing(duck):
    def create_and_fail():
        with transaction.atomic(using="duck"):
            Tag.objects.using("duck").create(name="gone")
            assert Tag.objects.using("duck").count() == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        create_and_fail()
    assert Tag.objects.using("duck").count() == 0


def test_rows_of_one_query_survive_another_query_in_between(duck):
    Tag.objects.using("duck").bulk_create([Tag(name=f"t{i}") for i in range(5_000)])
    seen = 0
    for tag in Tag.objects.using("duck").order_by("pk").iterator(chunk_size=100):
        if seen % 1_000 == 0:
            assert Tag.objects.using("duck").get(pk=tag.pk).name == tag.name
        seen += 1
    assert seen == 5_000


def test_a_result_left_half_read_is_no_obstacle(duck):
    Tag.objects.using("duck").bulk_create([Tag(name=f"t{i}") for i in range(5_000)])
    duck.connection.execute("SELECT * FROM shop_tag").fetchone()
    Tag.objects.using("duck").bulk_create([Tag(name=f"u{i}") for i in range(5_000)])
    assert duck.connection.fetch_arrow("SELECT count(*) AS n FROM shop_tag").to_pylist() == [
        {"n": 10_000}
    ]


def test_json_contains_looks_at_its_own_level_only(duck):
    rows = Everything.objects.using("duck")
    rows.create(data={"a": {"x": 1}, "l": [1, [2], None]})
    assert rows.filter(data__contains={"a": {"x": 1}}).exists()
    assert not rows.filter(data__contains={"x": 1}).exists()
    assert rows.filter(data__l__contains=[[2]]).exists()
    assert not rows.filter(data__l__contains=[2]).exists()
    assert rows.filter(data__l__contains=[None, 1]).exists()
    assert rows.filter(data__l__contains=1).exists()


def test_json_in_ignores_spaces_and_escapes(duck):
    with duck.cursor() as cursor:
        cursor.execute(
            """INSERT INTO shop_everything (id, data) VALUES (1, '{ "a" : [1,  "\\u00e9"] }')"""
        )
    rows = Everything.objects.using("duck").values_list("pk", flat=True)
    assert list(rows.filter(data__in=[3, {"a": [1, "é"]}])) == [1]
    assert list(rows.filter(data__a__in=[[1, "é"]])) == [1]
    assert not rows.filter(data__in=[{"a": [1]}])


def test_json_values_order_as_numbers(duck):
    rows = Everything.objects.using("duck")
    for number in (10, 9, 100):
        rows.create(data={"n": number})
    ordered = rows.order_by("data__n").values_list("data__n", flat=True)
    assert list(ordered) == [9, 10, 100]


def test_the_driver_speaks_arrow_both_ways(duck):
    duck.ensure_connection()
    table = pyarrow.table({"id": [7, 8], "name": ["seven", "eight"]})
    inserted = duck.connection.execute(
        "INSERT INTO shop_tag (id, name) SELECT id, name FROM incoming WHERE id > ? RETURNING id",
        [7],
        arrow={"incoming": table},
    )
    assert inserted.fetchall() == [(8,)]
    back = duck.connection.fetch_arrow("SELECT id, name FROM shop_tag WHERE name = $1", ["eight"])
    assert back.to_pylist() == [{"id": 8, "name": "eight"}]
    with pytest.raises(ProgrammingError), duck.wrap_database_errors:
        duck.connection.execute("SELECT * FROM incoming")


def test_a_missing_table_is_not_found_among_python_variables(duck):
    incoming = pyarrow.table({"id": [1]})
    with duck.cursor() as cursor, pytest.raises(ProgrammingError):
        cursor.execute("SELECT * FROM incoming")
    assert incoming.num_rows == 1


def test_raw_sql_reads_zoned_timestamps_without_further_packages(duck):
    with duck.cursor() as cursor:
        cursor.execute("SELECT now(), %s, '100%%', %s", [None, "a%b"])
        now, nothing, percent, text = cursor.fetchone()
        assert (nothing, percent, text) == (None, "100%", "a%b")
        assert now.utcoffset() == datetime.timedelta(0)
        cursor.execute("SELECT '50%'")
        assert cursor.fetchall() == [("50%",)]
        cursor.execute("SELECT %(a)s + %(b)s", {"a": 1, "b": 2})
        assert cursor.fetchone() == (3,)


def test_text_that_is_no_number_is_a_data_error(duck):
    with duck.cursor() as cursor, pytest.raises(DataError):
        cursor.execute("SELECT CAST(%s AS INTEGER)", ["many"])


def test_functions_that_projects_use(orders):
    row = orders.order_by("pk").annotate(
        up=Upper("customer__name"),
        size=Length("customer__name"),
        text=Cast("total", models.CharField(max_length=20)),
        some=Coalesce("placed_at", Now()),
        late=Now() - F("placed_at"),
    )
    first = row.first()
    assert (first.up, first.size, first.text) == ("BO", 2, "10.00")
    assert isinstance(first.late, datetime.timedelta)


def test_now_is_the_time_of_the_statement_and_one_for_all_of_it(orders):
    times = orders.annotate(now=Now(), again=Now()).values_list("now", "again")
    with transaction.atomic(using="duck"):
        before = {time for row in times.all() for time in row}
        after = {time for row in times.all() for time in row}
    assert len(before) == len(after) == 1
    assert before.pop() < after.pop() <= timezone.now()
    assert orders.values(now=Now()).annotate(n=Count("pk")).order_by("now").get()["n"] == 6
    _, params = orders.filter(placed_at__lt=Now()).query.get_compiler("duck").as_sql()
    assert [str(param) for param in params] == ["timezone('UTC', now())"]


def test_explain_shows_the_plan(orders):
    assert "shop_order" in orders.filter(total__gt=5).explain()
    assert json.loads(orders.all().explain(format="json"))
    assert "Total Time" in orders.all().explain(analyze=True)


def test_inspectdb_writes_models_of_the_tables(duck, capsys):
    call_command("inspectdb", "shop_everything", "shop_tag", database="duck")
    written = capsys.readouterr().out
    assert "class ShopTag(models.Model):" in written
    assert "price = models.DecimalField(max_digits=15, decimal_places=4" in written
    assert "ident = models.UUIDField(blank=True, null=True)" in written
    assert "name = models.TextField(unique=True)" in written


def test_flush_empties_and_starts_keys_again(duck):
    user = User.objects.db_manager("duck").create_user("ana")
    user.groups.add(Group.objects.using("duck").create(name="g"))
    call_command("flush", database="duck", interactive=False, verbosity=0)
    assert not User.objects.using("duck").exists()
    assert User.objects.db_manager("duck").create_user("bo").pk == 1


def test_sqlsequencereset_continues_after_the_highest_key(duck, capsys):
    Tag.objects.using("duck").create(pk=41, name="given")
    call_command("sqlsequencereset", "shop", database="duck", no_color=True)
    with duck.cursor() as cursor:
        for statement in capsys.readouterr().out.strip().splitlines():
            cursor.execute(statement)
    assert Tag.objects.using("duck").create(name="next").pk == 42


def test_null_order_follows_the_option(duck):
    Everything.objects.using("duck").bulk_create([Everything(integer=1), Everything()])
    values = Everything.objects.using("duck").values_list("integer", flat=True)
    assert list(values.order_by("integer")) == [1, None]
    assert list(values.order_by("-integer")) == [None, 1]
    assert list(values.order_by(F("integer").desc(nulls_last=True))) == [1, None]


def test_without_numpy_a_database_opens_and_refuses_the_digests_by_name(
    monkeypatch, django_db_blocker
):
    monkeypatch.setitem(sys.modules, "numpy", None)
    settings = {**connections.settings["default"], "ENGINE": "levada.stores.duckdb", "OPTIONS": {}}
    settings["NAME"] = ":memory:without_numpy"
    handler = ConnectionHandler({"default": settings})
    with django_db_blocker.unblock(), closing(handler["default"]) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT sha256('a')")
            assert cursor.fetchone() == (hashlib.sha256(b"a").hexdigest(),)
        expression = SHA512(Value("a"))
        with pytest.raises(NotSupportedError, match="pip install numpy"):
            expression.as_duckdb(None, connection)


def test_bulk_create_of_plain_values_is_as_save_would_do(duck):
    moment = datetime.datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Lisbon"))
    rows = [
        Everything(
            big=2**62 if n else None,
            flag=bool(n),
            real=n / 3,
            price=Decimal("1.5"),
            char=str(n),
            text="",
            day=datetime.date(2026, 7, 1),
            moment=moment if n % 2 else moment.astimezone(UTC),
        )
        for n in range(40)
    ]
    everything = Everything.objects.using("duck")
    made = everything.bulk_create(rows)
    for row in rows[:3]:
        row.pk = None
        row.save(using="duck")
    saved = everything.order_by("-pk")[:3]
    names = ("big", "flag", "real", "price", "char", "text", "day", "moment")
    for one, other in zip(reversed(saved), everything.filter(pk__lte=made[2].pk), strict=False):
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    assert everything.filter(moment=moment).count() == 43


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("integer", "7", 7),
        ("integer", True, 1),
        ("char", 5, "5"),
        ("price", "2.25", Decimal("2.25")),
        ("price", 0.5, Decimal("0.5")),
        ("day", datetime.datetime(2026, 7, 1, 23, tzinfo=UTC), datetime.date(2026, 7, 1)),
        ("moment", "2026-07-01T12:00:00+02:00", datetime.datetime(2026, 7, 1, 10, tzinfo=UTC)),
        ("big", Length(Value("abc")), 3),
    ],
)
def test_one_value_of_another_type_is_prepared_with_all_others(duck, name, value, stored):
    everything = Everything.objects.using("duck")
    everything.bulk_create([*(Everything() for _ in range(40)), Everything(**{name: value})])
    assert getattr(everything.latest("pk"), name) == stored
