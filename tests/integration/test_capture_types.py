"""Whatever a column holds travels exactly, or at worst as what it is; never as a failed write."""

import datetime as dt
import json
import uuid
from decimal import Decimal

import pytest
from django.db import connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.shop.models import Everything, Product

from .captured import capturing

pytestmark = pytest.mark.django_db(transaction=True)
sqlite, postgresql = pytest.mark.sqlite, pytest.mark.postgresql
ON_SQLITE = connection.vendor != "postgresql"

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="" if ON_SQLITE else "\0"),
    max_size=60,
)
FLOATS = st.floats(allow_nan=not ON_SQLITE)  # SQLite keeps NaN as NULL
DATETIMES = st.datetimes(
    min_value=dt.datetime(1, 1, 2),
    max_value=dt.datetime(9999, 12, 30),
    timezones=st.just(dt.UTC),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT.filter(lambda t: "\0" not in t),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXT.filter(lambda t: "\0" not in t), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = {
    "big": INT64,
    "small": st.integers(-(2**15), 2**15 - 1),
    "integer": INT32,
    "positive": st.integers(0, 2**63 - 1),
    "flag": st.booleans(),
    "real": FLOATS,
    "price": st.decimals(-(10**11) + 1, 10**11 - 1, places=4, allow_nan=False),
    "char": TEXT,
    "text": TEXT,
    "slug": TEXT.map(lambda text: text[:50]),
    "url": TEXT,
    "ip": st.ip_addresses().map(str),
    "file": TEXT,
    "day": st.dates(),
    "clock": st.times(),
    "moment": DATETIMES,
    "span": st.timedeltas(dt.timedelta(days=-100_000), dt.timedelta(days=100_000)),
    "ident": st.uuids(),
    "blob": st.binary(max_size=60),
    "data": JSON,
}


def read_image(kind, value):
    """Decode one column of an image by the rules of `levada.tables`, independently of stores."""
    if value is None:
        return None
    decoders = {
        "integer": int,
        "boolean": bool,
        "float": float,
        "decimal": lambda v: Decimal(v),
        "text": str,
        "date": dt.date.fromisoformat,
        "time": dt.time.fromisoformat,
        "timestamp": lambda v: _utc(dt.datetime.fromisoformat(v)),
        "duration": lambda v: dt.timedelta(microseconds=int(v)),
        "uuid": uuid.UUID,
        "binary": lambda v: bytes.fromhex(v.removeprefix("\\x")),
        "json": json.loads,
    }
    return decoders[kind](value)


def _utc(moment):
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def decoded(change):
    from levada.tables import table_spec

    return {
        column.name: read_image(column.kind, change.after[column.name])
        for column in table_spec(Everything).columns
    }


def orm_reads():
    row = Everything.objects.values().get()
    row["blob"] = None if row["blob"] is None else bytes(row["blob"])
    return row


def same(left, right):
    """Say whether two rows are equal, NaN to NaN, 1 not to True."""
    return repr(sorted(left.items())) == repr(sorted(right.items()))


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.fixed_dictionaries({name: st.none() | each for name, each in FIELDS.items()}))
@example({"real": 0.1 + 0.2, "price": Decimal("0.1000"), "text": "", "char": None})
@example({"data": None, "text": 'quote " back \\ slash / \x01 \u2028 😀', "blob": b""})
@example({"data": "null"})
@example({"data": {"a": [1, {"b": None}]}, "ident": uuid.UUID(int=0), "span": dt.timedelta()})
@example({"real": 5e-324, "big": -(2**63), "positive": 2**63 - 1})
@example({"real": -1.7976931348623157e308})
@example({"real": 1e22, "span": dt.timedelta(microseconds=-1)})
@example({"price": Decimal("99999999999.9999"), "moment": dt.datetime(1, 1, 2, tzinfo=dt.UTC)})
def test_every_field_type_survives_exactly(values):
    Everything.objects.all().delete()
    with capturing() as inserted:
        row = Everything.objects.create(**values)
    with capturing() as updated:
        Everything.objects.filter(pk=row.pk).update(small=None if row.small else 1)

    expected = orm_reads()
    assert same(decoded(updated[0]), expected)
    assert updated[0].before == inserted[0].after
    expected["small"] = values.get("small")
    assert same(decoded(inserted[0]), expected)


@postgresql
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_json_has_no_number_for_travels_as_text(number):
    with capturing() as changes:
        Everything.objects.create(real=number)

    assert same(decoded(changes[0]), orm_reads())


@sqlite
def test_infinity_travels_as_text_on_sqlite():
    with capturing() as changes:
        Everything.objects.create(real=float("inf"))
        Everything.objects.create(real=float("-inf"))

    assert [change.after["real"] for change in changes] == ["Infinity", "-Infinity"]


@sqlite
@pytest.mark.parametrize(
    "number", ["0.00005", "0.00015", "0.00025", "-0.00005", "-0.00015", "2.34565", "1.00001"]
)
def test_a_decimal_computed_between_two_places_is_rounded_as_django_reads_it(number):
    with capturing() as changes, connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO shop_everything (price) VALUES ({number})")

    assert changes[0].after["price"] == Everything.objects.get().price


@sqlite
def test_a_decimal_keeps_its_places():
    with capturing() as changes:
        Product.objects.create(name="a", price=Decimal("12.5"))
        Product.objects.create(name="b", price=Decimal("7"))

    assert [str(change.after["price"]) for change in changes] == ["12.50", "7.00"]


ODD = [
    ("text", b"\xff\x00hi", "\\xff006869"),
    ("integer", "twelve", "twelve"),
    ("integer", b"\x01", "\\x01"),
    ("flag", "maybe", "maybe"),
    ("flag", 7, 7),
    ("real", "fast", "fast"),
    ("real", b"\x02", "\\x02"),
    ("price", "cheap", "cheap"),
    ("price", b"\x03", "\\x03"),
    ("day", b"\x04", "\\x04"),
    ("day", 2026, 2026),
    ("moment", "soon", "soon"),
    ("moment", b"\x05", "\\x05"),
    ("ident", "not-a-uuid", "not-a-uuid"),
    ("ident", b"\x06", "\\x06"),
    ("span", "long", "long"),
    ("blob", "text", "\\x74657874"),
    ("char", "a\0b", "a\0b"),
]


@sqlite
@pytest.mark.parametrize(("column", "stored", "image"), ODD)
def test_a_value_of_another_type_than_its_column_fails_no_write(column, stored, image):
    """SQLite lets anything into any column; json_object() alone would raise on a BLOB."""
    with capturing() as changes, connection.cursor() as cursor:
        cursor.execute(f'INSERT INTO shop_everything ("{column}") VALUES (%s)', [stored])
        cursor.execute("UPDATE shop_everything SET small = 1")
        cursor.execute("DELETE FROM shop_everything")

    assert [change.op for change in changes] == ["c", "u", "d"]
    assert {str(each[column]) for c in changes for each in (c.before, c.after) if each} == {
        str(image)
    }


@sqlite
def test_invalid_json_fails_no_write():
    with capturing() as changes, connection.cursor() as cursor:
        cursor.execute("PRAGMA ignore_check_constraints = ON")
        cursor.execute("INSERT INTO shop_everything (data) VALUES ('{broken')")
        cursor.execute("PRAGMA ignore_check_constraints = OFF")

    assert changes[0].after["data"] == "{broken"


@sqlite
def test_a_row_of_many_columns_fits_the_limits_of_sqlite():
    """A function takes 127 arguments and an expression is at most 1,000 deep."""
    from levada.capture import sqlite as dialect
    from levada.capture.plan import Table
    from levada.tables import ColumnSpec, TableSpec

    names = [f"c{n}" for n in range(1_500)]
    spec = TableSpec(
        "shop.Wide",
        "wide",
        ("c0",),
        tuple(ColumnSpec(name, "integer", "IntegerField") for name in names),
    )
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE wide ({', '.join(f'{name} integer' for name in names)})")
        try:
            wanted = dialect.wanted(spec, Table("wide", dict.fromkeys(names, "")), None)
            for sql in wanted.create.values():
                cursor.execute(sql)
            with capturing() as changes:
                cursor.execute(f"INSERT INTO wide VALUES ({', '.join(map(str, range(1_500)))})")
                cursor.execute("UPDATE wide SET c1499 = 0")
        finally:
            cursor.execute("DROP TABLE wide")

    assert changes[0].after == {name: n for n, name in enumerate(names)}
    assert changes[1].after["c1499"] == 0


@postgresql
@pytest.mark.parametrize(
    "setting",
    [
        "SET timezone = 'Asia/Kathmandu'",
        "SET extra_float_digits = -10",
        "SET bytea_output = 'escape'",
        "SET intervalstyle = 'sql_standard'",
        "SET datestyle = 'German, DMY'",
        "SET standard_conforming_strings = off",
    ],
)
def test_an_image_does_not_follow_the_session(setting):
    with connection.cursor() as cursor:
        row = Everything.objects.create(
            moment=dt.datetime(2026, 11, 21, 8, 30, tzinfo=dt.UTC),
            day=dt.date(2026, 11, 21),
            span=dt.timedelta(days=-1, microseconds=3),
            real=0.1 + 0.2,
            blob=b"\x00hi",
        )
        expected = orm_reads()
        with capturing() as changes:
            cursor.execute(setting)
            try:
                cursor.execute("UPDATE shop_everything SET small = 1 WHERE id = %s", [row.pk])
            finally:
                connection.close()

    assert same(decoded(changes[0]), {**expected, "small": 1})


@postgresql
def test_a_duration_counts_years_and_months_as_the_driver_does():
    with capturing() as changes, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO shop_everything (span) VALUES ('2 years -5 months 3 days 04:05:06.7')"
        )
        read = Everything.objects.get().span
        cursor.execute("UPDATE shop_everything SET span = '-178000000 years'")

    assert read_image("duration", changes[0].after["span"]) == read
    assert changes[1].after["span"] < -(2**63)  # more than Python holds, and no failed write
