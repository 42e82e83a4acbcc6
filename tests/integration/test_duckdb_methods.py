"""sample(), asof_join(), pivot() and windows as QUALIFY, each against a computation in Python."""

import datetime
from decimal import Decimal

import pytest
from django.db import NotSupportedError
from django.db.models import Avg, Count, F, Q, Sum, Value, Window
from django.db.models.functions import RowNumber, TruncMonth

from levada.stores.duckdb.querysets import DuckDBMethods
from tests.shop.models import Customer, Everything, Order, OrderLine, Seat

from .test_duckdb_aggregates import orders  # noqa: F401
from .test_duckdb_arrow import many  # noqa: F401
from .test_duckdb_backend import UTC, duck  # noqa: F401


def keys(queryset):
    return sorted(queryset.values_list("pk", flat=True))


def test_a_sample_is_of_what_was_filtered(many):  # noqa: F811
    even = many.filter(quantity=2)
    rows = even.sample(rows=100, seed=7)
    assert rows.count() == 100
    assert {line.quantity for line in rows} == {2}
    assert keys(rows) == keys(even.sample(rows=100, seed=7)) != keys(even.sample(rows=100, seed=8))
    tenth = many.sample(percent=10, seed=1)
    assert 19_000 < tenth.count() < 21_000
    assert keys(tenth) == keys(many.sample(percent=10, seed=1))
    assert abs(tenth.aggregate(mean=Avg("pk"))["mean"] - 100_000) < 2_000
    assert many.sample(rows=5).count() == 5
    assert many.filter(pk__lt=3).sample(rows=5).count() == 2


def test_a_sample_is_a_queryset_like_any_other(many):  # noqa: F811
    sample = many.sample(rows=50, seed=3)
    assert sample.filter(pk__lte=100_000).count() == sum(key <= 100_000 for key in keys(sample))
    assert sample.order_by("-pk").first().pk == keys(sample)[-1]
    assert sample.values("quantity").annotate(n=Count("pk")).aggregate(all=Sum("n")) == {"all": 50}
    assert keys(sample.sample(rows=50)) == keys(sample)
    first = many.order_by("pk")[:100].sample(rows=10, seed=1)
    assert max(keys(first)) <= 100
    assert len(keys(first)) == 10
    assert sample.to_arrow().num_rows == 50


def test_a_sample_by_composite_keys(duck):  # noqa: F811
    Seat.objects.using("duck").bulk_create(Seat(row="A", number=n) for n in range(50))
    assert Seat.objects.using("duck").sample(rows=7, seed=1).count() == 7


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, TypeError),
        ({"percent": 1, "rows": 1}, TypeError),
        ({"percent": 0}, ValueError),
        ({"percent": 101}, ValueError),
        ({"rows": 0}, ValueError),
        ({"rows": 1, "seed": "1); DROP TABLE shop_order; --"}, ValueError),
    ],
)
def test_what_is_no_sample_is_refused(many, arguments, error):  # noqa: F811
    with pytest.raises(error):
        many.sample(**arguments)
    with pytest.raises(TypeError, match="before values"):
        many.values("sku").sample(rows=1)


MOMENT = datetime.datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def quotes(duck):  # noqa: F811
    """Quotes of two symbols in `Everything`: slug, moment, price."""
    Everything.objects.using("duck").bulk_create(
        Everything(
            slug="ab"[n % 2],
            moment=MOMENT + datetime.timedelta(minutes=10 * n),
            price=Decimal(n),
            integer=n % 3,
        )
        for n in range(40)
    )
    customers = [
        Customer.objects.using("duck").create(name=name, country=name) for name in ("a", "b", "c")
    ]
    Order.objects.using("duck").bulk_create(
        Order(
            customer=customers[n % 3],
            country=customers[n % 3].name,
            total=n,
            placed_at=MOMENT + datetime.timedelta(minutes=7 * n - 30),
        )
        for n in range(60)
    )
    return Everything.objects.using("duck")


def partner(quotes, order, *, forward=False, strict=False):
    """Return the quote that an ASOF join finds, by looking at every one."""
    wanted = [
        quote
        for quote in quotes
        if quote.slug == order.country
        and (
            (quote.moment > order.placed_at)
            if forward
            else (quote.moment < order.placed_at)
            or (not strict and quote.moment == order.placed_at)
        )
    ]
    if forward and not strict:
        wanted += [q for q in quotes if q.slug == order.country and q.moment == order.placed_at]
    choose = min if forward else max
    return choose(wanted, key=lambda quote: quote.moment) if wanted else None


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_each_row_meets_the_one_of_its_time(quotes, forward, strict):
    joined = Order.objects.using("duck").asof_join(
        quotes.all(),
        on=("placed_at", "moment"),
        by={"country": "slug"},
        values={"price": "price", "quoted_at": "moment"},
        forward=forward,
        strict=strict,
    )
    everything = list(quotes)
    assert joined.count() == 60
    for order in joined:
        found = partner(everything, order, forward=forward, strict=strict)
        assert (order.price, order.quoted_at) == (
            (found.price, found.moment) if found else (None, None)
        )


def test_an_asof_join_is_a_queryset_like_any_other(quotes):
    some = quotes.filter(integer=1, price__gt=3)
    joined = (
        Order.objects.using("duck")
        .filter(total__gt=5)
        .asof_join(
            some,
            on=("placed_at", "moment"),
            by={"customer__name": "slug"},
            values={"last": "price"},
        )
    )
    expected = {
        order.pk: getattr(partner(list(some), order), "price", None)
        for order in Order.objects.using("duck").filter(total__gt=5)
    }
    assert dict(joined.values_list("pk", "last")) == expected
    known = {key: price for key, price in expected.items() if price is not None}
    assert joined.filter(last__isnull=True).count() == len(expected) - len(known)
    assert joined.aggregate(Sum("last")) == {"last__sum": sum(known.values())}
    by_country = joined.values("country").annotate(best=Sum("last")).order_by("country")
    assert sum(row["best"] or 0 for row in by_country) == sum(known.values())
    best = joined.order_by(F("last").desc(nulls_last=True), "pk")[0]
    assert best.last == max(known.values())
    assert Order.objects.using("duck").filter(
        pk__in=joined.filter(last=16).values("pk")
    ).count() == list(expected.values()).count(16)
    twice = joined.asof_join(
        quotes.all(), on=("placed_at", "moment"), values=["price"], forward=True
    )
    sql, _ = twice.query.get_compiler("duck").as_sql()
    assert sql.count("ASOF LEFT JOIN") == 2
    assert twice.count() == len(expected)
    assert twice.to_arrow().num_rows == len(expected)
    assert joined.annotate(n=F("last") + Value(1)).filter(n__gt=17).count() == sum(
        price > 16 for price in known.values()
    )


def test_an_asof_join_that_makes_no_sense_is_refused(quotes):
    orders = Order.objects.using("duck")  # noqa: F811
    with pytest.raises(TypeError, match="wants values"):
        orders.asof_join(quotes, on=("placed_at", "moment"), values=[])
    with pytest.raises(TypeError, match="list of names"):
        orders.asof_join(quotes, on=("placed_at", "moment"), values="price")
    with pytest.raises(TypeError, match="no union"):
        orders.asof_join(quotes.union(quotes), on=("placed_at", "moment"), values=["price"])
    with pytest.raises(TypeError, match="before slices"):
        orders[:1].asof_join(quotes, on=("placed_at", "moment"), values=["price"])


def test_a_pivot_has_a_column_for_each_value(orders):  # noqa: F811
    pivot = (
        orders.annotate(month=TruncMonth("placed_at"))
        .filter(total__gt=1)
        .values("month")
        .pivot(
            "country", total=Sum("total"), n=Count("pk"), large=Count("pk", filter=Q(total__gt=50))
        )
    )
    assert pivot.columns == [
        "month", "PT_total", "PT_n", "PT_large", "SE_total", "SE_n", "SE_large",
    ]  # fmt: skip
    cells = {}
    for order in orders.filter(total__gt=1):
        month = order.placed_at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        cells.setdefault((month, order.country), []).append(order.total)
    months = sorted({month for month, _ in cells})
    rows = list(pivot)
    assert [row["month"] for row in rows] == months
    for row in rows:
        for country in ("PT", "SE"):
            totals = cells.get((row["month"], country), [])
            assert row[f"{country}_total"] == (sum(totals) if totals else None)
            assert row[f"{country}_n"] == len(totals)
            assert row[f"{country}_large"] == sum(total > 50 for total in totals)
    table = pivot.to_arrow()
    assert table.column_names == pivot.columns
    assert table.to_pylist()[0]["PT_total"] == rows[0]["PT_total"]
    assert pivot.to_polars().height == pivot.to_pandas().shape[0] == len(months)


def test_a_pivot_takes_values_of_any_kind_and_look(orders):  # noqa: F811
    names = ["it's", "%s", 'a"b', "Ana"]
    for name in names[:3]:
        customer = Customer.objects.using("duck").create(name=name)
        Order.objects.using("duck").create(customer=customer, country="ES", total=5)
    given = orders.values("country").pivot("customer__name", names, total=Sum("total"))
    rows = {row["country"]: row for row in given}
    assert rows["ES"] == {"country": "ES", "it's": 5, "%s": 5, 'a"b': 5, "Ana": None}
    assert rows["SE"]["Ana"] is None
    moments = list(orders.order_by("pk").values_list("placed_at", flat=True)[:2])
    by_moment = list(orders.values("country").pivot("placed_at", moments, n=Count("pk")))
    assert sum(row[str(moments[0])] for row in by_moment) == 1
    keys_ = orders.values("country").pivot("customer", n=Count("pk"))
    assert keys_.columns[:2] == ["country", "1"]
    nothing = orders.none().values("country").pivot("customer", n=Count("pk"))
    assert (list(nothing), nothing.columns) == ([], ["country"])


def test_a_pivot_that_makes_no_sense_is_refused(orders):  # noqa: F811
    with pytest.raises(TypeError, match="values"):
        orders.pivot("country", n=Count("pk"))
    with pytest.raises(TypeError, match="aggregates"):
        orders.values("country").pivot("customer")
    with pytest.raises(TypeError, match="slices"):
        orders.values("country")[:1].pivot("customer", n=Count("pk"))
    with pytest.raises(ValueError, match="two columns"):
        orders.values("country").pivot("customer__name", ["country"], n=Count("pk"))


def test_a_filter_on_a_window_is_qualify(orders):  # noqa: F811
    place = Window(RowNumber(), partition_by=F("country"), order_by=F("total").desc())
    best = orders.alias(place=place).filter(place__lte=2)
    asked = orders.query.get_meta().db_table
    rows = best.query.get_compiler("duck").connection.connection.execute(
        f"SELECT id FROM {asked} QUALIFY row_number() OVER "
        f"(PARTITION BY country ORDER BY total DESC) <= 2"
    )
    assert keys(best) == sorted(row[0] for row in rows.fetchall())


@pytest.mark.django_db
def test_another_database_is_refused_by_name():
    lines = OrderLine.objects.using("default")
    for run in (
        lambda: list(lines.sample(rows=1)),
        lambda: list(lines.asof_join(lines.all(), on="pk", values={"other": "sku"})),
        lambda: lines.values("sku").pivot("quantity", n=Count("pk")),
    ):
        with pytest.raises(NotSupportedError, match="needs DuckDB"):
            run()


def test_every_queryset_has_every_method():
    methods = {name for name in vars(DuckDBMethods) if not name.startswith("_")}
    assert all(hasattr(OrderLine.objects.all(), name) for name in methods)
    assert {"sample", "asof_join", "pivot", "to_arrow"} <= methods
