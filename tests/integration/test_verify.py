"""Verify finds equal what is equal, and of what differs exactly the rows."""

import json
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from django.db import connection

from tests.shop.models import Customer, Everything, Seat

from .channel import Channel

pytestmark = pytest.mark.django_db(transaction=True)
EVERYTHING = "shop.Everything"


@pytest.fixture
def channel(tmp_path):
    channel = Channel(tmp_path / "store.duckdb")
    yield channel
    channel.close()


VALUES = {
    "big": 2**62,
    "small": -3,
    "integer": 7,
    "positive": 2**62 + 1,
    "flag": True,
    "real": 0.1 + 0.2,
    "price": Decimal("12345.6789"),
    "char": "ä \"quoted\" 'single' \\ \t",
    "text": "line\r\nbreak, 😀\n",
    "slug": "",
    "url": "https://example.org/?a=1,2",
    "ip": "2001:db8::1",
    "file": "a/b.txt",
    "day": date(2026, 11, 21),
    "clock": time(8, 30, 0, 1),
    "moment": datetime(2026, 11, 21, 8, 30, 0, 123456, tzinfo=UTC),
    "span": timedelta(days=-3, microseconds=7),
    "ident": UUID("9f1c0000-0000-4000-8000-0000000000ff"),
    "blob": b"\x00\xff\\x",
    "data": {"a": [1.10, None, "\u00e4"], "b": {}},
}


@pytest.fixture
def filled(channel):
    """A store with one row of every value, one of nulls and many alike, all of it equal."""
    Everything.objects.create(pk=1, **VALUES)
    Everything.objects.create(pk=2)
    Everything.objects.bulk_create(
        Everything(pk=pk, **VALUES | {"char": f"row {pk}"}) for pk in range(3, 50)
    )
    Seat.objects.bulk_create(Seat(row="A", number=n) for n in range(9))
    channel.drain()
    assert channel.verify().equal
    return channel


def only(verification, label=EVERYTHING):
    """Return the differences of one table and check that no other has any."""
    assert not verification.equal
    assert verification.undecided is None
    assert [each.label for each in verification.tables if not each.equal] == [label]
    (table,) = (each for each in verification.tables if each.label == label)
    assert table.different == len(table.differences)
    return [(each.kind, each.key, each.columns) for each in table.differences]


def test_what_the_snapshot_loaded_and_what_the_log_brought_are_equal(channel):
    """Half of the rows come by the source's columns, half by the triggers' images."""
    Everything.objects.create(pk=1, **VALUES)
    Everything.objects.create(pk=2)
    channel.drain()
    Everything.objects.create(pk=3, **VALUES)
    Everything.objects.create(pk=4)
    channel.drain()
    found = channel.verify()
    assert found.equal, found.to_json()
    (table,) = (each for each in found.tables if each.label == EVERYTHING)
    assert (table.source_rows, table.store_rows) == (4, 4)
    assert channel.rows(
        "SELECT count(*) FROM (SELECT DISTINCT * EXCLUDE (id) FROM shop_everything)"
    ) == [(2,)]


def test_the_replica_read_by_the_orm_is_what_the_source_reads(channel):
    """The same converters on both ends: verify's own reader has no part in this."""
    Everything.objects.create(pk=1, **VALUES)
    channel.drain()
    (row,) = channel.rows("SELECT * FROM shop_everything")
    source = Everything.objects.values_list().get()
    names = [field.name for field in Everything._meta.local_concrete_fields]
    for name, held, given in zip(names, row, source, strict=True):
        if name == "moment":
            held = held.replace(tzinfo=UTC)
        if name == "data":
            held = json.loads(held)
        assert held == (bytes(given) if name == "blob" else given), name


CORRUPTIONS = [
    ("moment", "moment + INTERVAL 1 MICROSECOND", "2026-11-21 08:30:00.123457"),
    ("price", "price + 0.0001", "12345.6790"),
    ("real", "0.3::DOUBLE", "0.3"),
    ("char", "NULL", None),
    ("slug", "NULL", None),
    ("text", "left(text, 5)", "line\r"),
    ("text", "text || ' '", "line\r\nbreak, 😀\n "),
    ("flag", "NOT flag", "false"),
    ("big", "big + 1", str(2**62 + 1)),
    ("day", "day + 1", "2026-11-22"),
    ("clock", "TIME '08:30:00'", "08:30:00"),
    ("span", "to_microseconds(0)", "00:00:00"),
    ("ident", "NULL", None),
    ("blob", "blob || '\\x00'::BLOB", "\\x00\\xFF\\x5Cx\\x00"),
    ("data", "replace(data::VARCHAR, '1.1', '1.2')::JSON", None),
]


@pytest.mark.parametrize(("column", "expression", "held"), CORRUPTIONS)
def test_one_changed_value_is_found_alone(filled, column, expression, held):
    filled.rows(f"UPDATE shop_everything SET {column} = {expression} WHERE id = 1")
    ((kind, key, columns),) = only(filled.verify())
    assert (kind, key) == ("changed", {"id": "1"})
    assert set(columns) == {column}
    source, store = columns[column]
    assert source is not None
    if column != "data":
        assert store == held
    assert source != store


def test_an_empty_text_in_the_place_of_null_is_found(filled):
    filled.rows("UPDATE shop_everything SET char = '' WHERE id = 2")
    assert only(filled.verify()) == [("changed", {"id": "2"}, {"char": (None, "")})]


def test_a_negative_zero_is_not_zero(filled):
    Everything.objects.filter(pk=2).update(real=0.0)
    filled.drain()
    filled.rows("DELETE FROM shop_everything WHERE id = 2")
    filled.rows("INSERT INTO shop_everything (id, real, file) VALUES (2, -0.0::DOUBLE, '')")
    assert only(filled.verify()) == [("changed", {"id": "2"}, {"real": ("0.0", "-0.0")})]


def test_a_deleted_row_is_missing(filled):
    filled.rows("DELETE FROM shop_everything WHERE id IN (7, 11)")
    assert only(filled.verify()) == [("missing", {"id": "7"}, {}), ("missing", {"id": "11"}, {})]


def test_a_row_the_source_does_not_have_is_extra(filled):
    filled.rows("INSERT INTO shop_everything (id) VALUES (99)")
    assert only(filled.verify()) == [("extra", {"id": "99"}, {})]


def test_a_row_without_a_key_is_extra(filled):
    filled.rows("INSERT INTO shop_everything (id) VALUES (NULL)")
    assert only(filled.verify()) == [("extra", {"id": None}, {})]


def test_a_row_that_is_there_twice_is_a_duplicate(filled):
    filled.rows("INSERT INTO shop_everything SELECT * FROM shop_everything WHERE id = 7")
    assert only(filled.verify()) == [("duplicate", {"id": "7"}, {})]


def test_swapped_rows_are_two_differences(filled):
    filled.rows("UPDATE shop_everything SET id = 10 - id WHERE id IN (4, 6)")
    assert only(filled.verify()) == [
        ("changed", {"id": "4"}, {"char": ("row 4", "row 6")}),
        ("changed", {"id": "6"}, {"char": ("row 6", "row 4")}),
    ]


def test_a_composite_key_is_named_by_all_its_columns(filled):
    filled.rows("UPDATE shop_seat SET taken = true WHERE \"row\" = 'A' AND number = 4")
    assert only(filled.verify(), "shop.Seat") == [
        ("changed", {"row": "A", "number": "4"}, {"taken": ("false", "true")})
    ]


def test_a_table_that_is_gone_is_a_difference(filled):
    filled.rows("DROP TABLE shop_everything")
    found = filled.verify()
    assert not found.equal
    (table,) = (each for each in found.tables if not each.equal)
    assert table.problem == "analytics has no such table"


def test_the_report_is_json(filled):
    filled.rows("UPDATE shop_everything SET small = 4 WHERE id = 1")
    report = json.loads(filled.verify([EVERYTHING]).to_json())
    assert report["equal"] is False
    (table,) = report["tables"]
    assert table["different"] == 1
    assert table["differences"] == [
        {"kind": "changed", "key": {"id": "1"}, "columns": {"small": ["-3", "4"]}}
    ]


def test_changes_the_snapshot_does_not_show_are_laid_over_it(filled, monkeypatch):
    """Between the snapshot and the store's position rows come, change and go."""

    snapshot = filled.source.snapshot

    @contextmanager
    def snapshot_then_writes():
        with snapshot() as found:
            Everything.objects.create(pk=60, **VALUES)
            Everything.objects.filter(pk=3).update(char="newer")
            Everything.objects.filter(pk=4).delete()
            filled.drain()
            yield found

    monkeypatch.setattr(filled.source, "snapshot", snapshot_then_writes)
    found = filled.verify()
    assert found.equal, found.to_json()
    assert channel_count(filled) == 49


def channel_count(channel):
    return channel.rows("SELECT count(*) FROM shop_everything")[0][0]


def test_without_an_applier_it_cannot_tell(filled):
    Customer.objects.create(name="Ana")
    found = filled.verify(timeout_s=0.1)
    assert not found.equal
    assert found.different == 0
    assert "levada status" in found.undecided


def test_a_changed_shape_is_undecided_and_names_the_rebuild(filled):
    from levada.outbox.models import ReplicatedTable
    from levada.tables import table_spec

    spec = table_spec(Everything, ("data",))
    ReplicatedTable.objects.filter(label=EVERYTHING).update(
        spec=spec.to_json(), fingerprint=spec.fingerprint
    )
    try:
        found = filled.verify()
    finally:
        whole = table_spec(Everything)
        ReplicatedTable.objects.filter(label=EVERYTHING).update(
            spec=whole.to_json(), fingerprint=whole.fingerprint
        )
    assert not found.equal
    assert "levada rebuild analytics --table shop.Everything" in found.undecided
    assert EVERYTHING not in {table.label for table in found.tables}


@pytest.mark.sqlite
def test_a_value_of_the_wrong_type_in_the_source_is_unreadable(filled):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE shop_everything SET small = 'many', flag = 2 WHERE id = 5")
        cursor.execute("UPDATE shop_everything SET small = 40000 WHERE id = 6")
    filled.drain()
    found = only(filled.verify())
    assert {(kind, key["id"]) for kind, key, _ in found} == {
        ("unreadable", "5"),
        ("unreadable", "6"),
    }


@pytest.mark.sqlite
def test_bytes_in_a_text_column_of_the_source_are_unreadable(filled):
    """The log carries them as hex in a string, which the store takes: only verify can tell."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE shop_everything SET text = x'ff00' WHERE id = 5")
        cursor.execute("UPDATE shop_everything SET char = x'' WHERE id = 6")
    filled.drain()
    found = only(filled.verify())
    assert [(kind, key["id"]) for kind, key, _ in found] == [
        ("unreadable", "5"),
        ("unreadable", "6"),
    ]
    assert found[0][2] == {"text": ("b'\\xff\\x00'", None)}
