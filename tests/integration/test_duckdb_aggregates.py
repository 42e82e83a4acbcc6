"""DuckDB's own aggregates, each against a computation in Python."""

import datetime
import statistics
from collections import Counter
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.db import NotSupportedError, connections
from django.db.models import Avg, F, OuterRef, Q, Subquery, Sum, Window
from django.utils import timezone

from levada.stores.duckdb.aggregates import (
    ApproxCountDistinct,
    ApproxQuantile,
    ArgMax,
    ArgMin,
    Histogram,
    ListAgg,
    Median,
    Mode,
    Quantile,
)
from levada.stores.duckdb.expressions import TimeBucket
from tests.shop.models import Customer, Everything, Order

from .test_duckdb_backend import UTC, duck  # noqa: F401

TOTALS = [Decimal(n * 37 % 101) + Decimal(n) / 100 for n in range(1, 61)]
START = datetime.datetime(2026, 1, 31, 22, 7, tzinfo=UTC)


@pytest.fixture
def orders(duck):  # noqa: F811
    """Sixty orders of three customers, each its own total, 17 hours apart."""
    customers = [
        Customer.objects.using("duck").create(name=name, country=country)
        for name, country in (("Ana", "PT"), ("Bo", "SE"), ("Cy", "PT"))
    ]
    Order.objects.using("duck").bulk_create(
        Order(
            customer=customers[n % 3],
            country=customers[n % 3].country,
            total=total,
            placed_at=START + datetime.timedelta(hours=17 * n),
        )
        for n, total in enumerate(TOTALS)
    )
    return Order.objects.using("duck")


def by_country(orders, value):
    found = {}
    for order in orders.order_by("pk"):
        found.setdefault(order.country, []).append(value(order))
    return found


def interpolated(values, share):
    """Return the quantile as its definition has it: linear between the two neighbours."""
    values = sorted(values)
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return float(values[low]) + float(values[high] - values[low]) * (at - low)


def test_quantiles_lie_between_their_neighbours(orders):
    shares = [0.5, 0.05, 0.99]
    got = orders.aggregate(
        one=Quantile("total", 0.25), several=Quantile("total", shares), middle=Median("total")
    )
    assert isinstance(got["one"], Decimal)
    assert float(got["one"]) == pytest.approx(interpolated(TOTALS, 0.25))
    assert [float(each) for each in got["several"]] == pytest.approx(
        [interpolated(TOTALS, share) for share in shares]
    )
    assert float(got["middle"]) == pytest.approx(float(statistics.median(TOTALS)))


def test_a_discrete_quantile_is_one_of_the_values(orders):
    got = orders.aggregate(
        total=Quantile("total", [0.5, 1], discrete=True),
        country=Quantile("country", 0.9, discrete=True),
        moment=Quantile("placed_at", 0, discrete=True),
    )
    assert got["total"] == [sorted(TOTALS)[29], max(TOTALS)]
    assert got["country"] == "SE"
    assert got["moment"] == START


def test_quantiles_of_integers_and_moments_have_the_type_between(orders):
    keys = list(orders.values_list("pk", flat=True))
    got = orders.aggregate(
        key=Median("pk"), moment=Median("placed_at"), customer=Quantile("customer", 0.4)
    )
    assert got["key"] == statistics.median(keys)
    assert isinstance(got["key"], float)
    assert got["moment"] == START + datetime.timedelta(hours=17 * 29.5)
    assert got["customer"] == interpolated([1, 2, 3] * 20, 0.4)
    with pytest.raises(TypeError, match="discrete=True"):
        orders.aggregate(Median("country"))


@pytest.mark.parametrize("q", [-0.1, 1.5, [], [0.5, 2], float("nan")])
def test_a_share_outside_0_to_1_is_refused(q):
    with pytest.raises(ValueError, match="from 0 to 1"):
        Quantile("total", q)


def test_approximate_aggregates_come_near(orders):
    got = orders.aggregate(
        totals=ApproxCountDistinct("total"),
        countries=ApproxCountDistinct("country"),
        middle=ApproxQuantile("total", 0.5),
        several=ApproxQuantile("total", [0.1, 0.9]),
    )
    assert got["totals"] == pytest.approx(60, rel=0.15)
    assert got["countries"] == 2
    spread = max(TOTALS) - min(TOTALS)
    for share, near in zip((0.5, 0.1, 0.9), (got["middle"], *got["several"]), strict=True):
        assert abs(float(near) - interpolated(TOTALS, share)) < float(spread) * 0.05
    assert orders.none().aggregate(n=ApproxCountDistinct("total")) == {"n": 0}


def test_the_value_of_the_row_with_the_largest_other(orders):
    rows = list(orders.select_related("customer"))
    best = sorted(rows, key=lambda order: order.total, reverse=True)
    got = orders.aggregate(
        best=ArgMax("customer__name", "total"),
        worst=ArgMin("number", "total"),
        three=ArgMax("placed_at", "total", n=3),
    )
    assert got["best"] == best[0].customer.name
    assert got["worst"] == best[-1].number
    assert got["three"] == [order.placed_at for order in best[:3]]
    with pytest.raises(ValueError, match="from 1 on"):
        ArgMax("pk", "total", n=0)


def test_the_mode_is_the_most_frequent_value(orders):
    assert orders.aggregate(country=Mode("country")) == {"country": "PT"}


def test_a_histogram_counts_values_or_bins(orders):
    got = orders.aggregate(countries=Histogram("country"), bands=Histogram("total", [10, 50]))
    assert got["countries"] == Counter(order.country for order in orders)
    bands = Counter(10 if total <= 10 else 50 if total <= 50 else None for total in TOTALS)
    assert got["bands"] == bands
    moments = [START + datetime.timedelta(days=days) for days in (10, 20)]
    by_moment = orders.aggregate(n=Histogram("placed_at", moments))["n"]
    assert by_moment[moments[0]] == orders.filter(placed_at__lte=moments[0]).count()
    assert sum(by_moment.values()) == 60
    odd = orders.aggregate(n=Histogram("country", ["%s'", "PT"]))["n"]
    assert odd == {"%s'": 0, "PT": 40, None: 20}
    with pytest.raises(ValueError, match="ascend"):
        Histogram("total", [2, 1])


def test_a_list_holds_the_values_in_the_order_asked_for(orders):
    expected = by_country(orders, lambda order: order.total)
    got = orders.values("country").annotate(
        upwards=ListAgg("total", order_by="total"),
        downwards=ListAgg("total", order_by=["-total", F("pk")]),
        moments=ListAgg("placed_at", order_by="pk"),
        names=ListAgg("customer__name", distinct=True, order_by="customer__name"),
    )
    assert got.count() == 2
    for row in got:
        assert row["upwards"] == sorted(expected[row["country"]])
        assert row["downwards"] == sorted(expected[row["country"]], reverse=True)
        assert row["moments"][0].tzinfo is UTC
        assert row["names"] == (["Ana", "Cy"] if row["country"] == "PT" else ["Bo"])
    assert orders.none().aggregate(all=ListAgg("pk", default=[])) == {"all": []}
    assert orders.filter(pk__lt=0).aggregate(all=ListAgg("pk"), or_=ListAgg("pk", default=[1])) == {
        "all": None,
        "or_": [1],
    }


def test_a_list_can_be_looked_into(orders):
    listed = orders.values("country").annotate(totals=ListAgg("total", order_by="-total"))
    best = {c: max(values) for c, values in by_country(orders, lambda o: o.total).items()}
    found = listed.filter(totals__0=best["SE"]).annotate(n=F("totals__len")).get()
    assert (found["country"], found["totals"][0], found["n"]) == ("SE", best["SE"], 20)
    assert listed.filter(totals__contains=[best["PT"]]).get()["country"] == "PT"


def test_filters_keep_their_parameters_in_place(orders):
    got = orders.filter(pk__gt=0).aggregate(
        median=Median("total", filter=Q(country="SE")),
        quantile=Quantile("total", [0.5], filter=Q(country="PT")),
        best=ArgMax("country", "total", filter=Q(country="SE")),
        listed=ListAgg(
            F("pk") + 1000, order_by=F("pk") * -1, filter=Q(country="SE", pk__lt=10), distinct=False
        ),
    )
    totals = by_country(orders, lambda order: order.total)
    assert float(got["median"]) == pytest.approx(float(statistics.median(totals["SE"])))
    assert float(got["quantile"][0]) == pytest.approx(float(statistics.median(totals["PT"])))
    assert got["best"] == "SE"
    keys = orders.filter(country="SE", pk__lt=10).values_list("pk", flat=True)
    assert got["listed"] == sorted((key + 1000 for key in keys), reverse=True)


def test_they_work_in_windows_and_subqueries(orders):
    window = {"partition_by": F("country")}
    medians = {
        country: float(statistics.median(totals))
        for country, totals in by_country(orders, lambda order: order.total).items()
    }
    above = orders.annotate(median=Window(Median("total"), **window)).filter(total__gt=F("median"))
    assert {order.pk for order in above} == {
        order.pk for order in orders if float(order.total) > medians[order.country]
    }
    same = (
        Order.objects.using("duck")
        .filter(country=OuterRef("country"))
        .values("country")
        .annotate(all=ListAgg("pk", order_by="pk"))
        .values("all")
    )
    row = orders.annotate(keys=Subquery(same)).first()
    assert row.keys == [order.pk for order in orders.order_by("pk") if order.country == row.country]
    best = orders.annotate(best=Window(ArgMax("pk", "total"), **window)).values_list("best")
    assert len(set(best)) == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    "aggregate",
    [
        ApproxCountDistinct("total"),
        ApproxQuantile("total", 0.5),
        ArgMax("total", "pk"),
        ArgMin("total", "pk", n=2),
        Histogram("total"),
        Histogram("total", [1]),
        ListAgg("total"),
        Median("total"),
        Mode("total"),
        Quantile("total", 0.5),
        TimeBucket("placed_at", datetime.timedelta(hours=1)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_another_database_is_refused_by_name(aggregate):
    with pytest.raises(NotSupportedError, match=rf"{type(aggregate).__name__} needs DuckDB.*using"):
        list(Order.objects.using("default").annotate(x=aggregate).values("x"))


def test_time_is_cut_into_buckets(orders):
    quarter = datetime.timedelta(minutes=15)
    got = orders.annotate(at=TimeBucket("placed_at", quarter)).values_list("placed_at", "at")
    for placed_at, at in got:
        assert at == placed_at - (placed_at - datetime.datetime(2000, 1, 1, tzinfo=UTC)) % quarter
    months = orders.annotate(at=TimeBucket("placed_at", 3)).values_list("at", flat=True).distinct()
    assert set(months) == {datetime.datetime(2026, 1, 1, tzinfo=UTC)}


def test_buckets_begin_in_the_zone_that_is_asked_for(orders):
    lisbon = ZoneInfo("America/Sao_Paulo")
    day = TimeBucket(
        "placed_at", datetime.timedelta(days=1), tzinfo=lisbon, origin=datetime.date(2026, 1, 1)
    )
    for placed_at, at in orders.annotate(at=day).values_list("placed_at", "at"):
        local = placed_at.astimezone(lisbon)
        assert at == local.replace(hour=0, minute=0, second=0, microsecond=0)
    with timezone.override(lisbon):
        current = TimeBucket("placed_at", datetime.timedelta(days=1))
        assert set(orders.annotate(at=current).values_list("at")) == set(
            orders.annotate(at=day).values_list("at")
        )


def test_buckets_of_dates_are_dates_and_may_start_anywhere(orders):
    week = TimeBucket(
        "placed_at__date", datetime.timedelta(days=7), origin=datetime.date(2026, 1, 1)
    )
    for placed_at, at in orders.annotate(at=week).values_list("placed_at", "at"):
        days = (placed_at.date() - datetime.date(2026, 1, 1)).days
        assert at == datetime.date(2026, 1, 1) + datetime.timedelta(days=days // 7 * 7)


@pytest.mark.parametrize(
    ("width", "error"), [("1 day", TypeError), (0, ValueError), (datetime.timedelta(), ValueError)]
)
def test_a_bucket_has_a_width(width, error):
    with pytest.raises(error, match="width"):
        TimeBucket("placed_at", width)


def test_a_bucket_is_of_time(orders):
    with pytest.raises(TypeError, match="DecimalField"):
        list(orders.annotate(at=TimeBucket("total", 1)))


def test_aggregates_are_equal_when_they_ask_the_same():
    assert Quantile("total", [0.5]) == Quantile("total", [0.5])
    assert Quantile("total", 0.5) != Quantile("total", 0.5, discrete=True)
    assert ArgMax("a", "b") != ArgMin("a", "b")


def test_the_default_alias_is_django_s(orders):
    assert orders.aggregate(Median("total")).keys() == {"total__median"}
    assert "duck" in connections


def test_durations_are_summed_under_a_filter(duck):  # noqa: F811
    """On Django 5.2 this was a TypeError: two templates for one aggregate."""
    rows = Everything.objects.using("duck")
    rows.bulk_create(Everything(integer=n, span=datetime.timedelta(hours=n)) for n in range(40))
    few = Q(integer__lt=3)
    got = rows.aggregate(sum=Sum("span", filter=few), mean=Avg("span", filter=few), all=Sum("span"))
    assert got == {
        "sum": datetime.timedelta(hours=3),
        "mean": datetime.timedelta(hours=1),
        "all": datetime.timedelta(hours=780),
    }
