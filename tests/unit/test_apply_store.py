"""The DuckDB store by hand-written records: exact values, order, positions, poison, drift."""

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from levada.changes import CHANGES, Batch, Position
from levada.errors import PoisonRecord, PositionMoved, SchemaDrift
from levada.stores.duckdb import ownership
from levada.stores.duckdb.store import DuckDBStore
from levada.tables import table_spec
from tests.shop.models import Everything, Order, Seat

EPOCH = "e1"


def at(offset):
    return Position(EPOCH, CHANGES, offset)


class Scribe:
    """Writes records as a trigger would, one offset after the other."""

    def __init__(self):
        self.offset = 0

    def record(self, model, op, key, after=None, *, fingerprint=None):
        spec = table_spec(model)
        row = (
            self.offset, CHANGES, spec.label, op,
            None if key is None else json.dumps(key), None,
            after if after is None or isinstance(after, str) else json.dumps(after),
            fingerprint or spec.fingerprint, 1, self.offset + 1, "2026-11-21T08:30:00+00:00", None,
        )  # fmt: skip
        self.offset += 1
        return row

    def batch(self, *rows):
        return Batch(list(rows), at(rows[0][0]), at(rows[-1][0] + 1))


@pytest.fixture
def scribe():
    return Scribe()


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store.duckdb"
    yield new_store(path)
    ownership.release(str(path))


def new_store(path):
    place = ownership.Place(str(path))
    store = DuckDBStore("analytics", ownership.connect(place))
    store.place = place
    return store


def fill(store, *models, position=0):
    specs = {spec.label: spec for spec in map(table_spec, models)}
    for spec in specs.values():
        store.create_shadow(spec)
    store.swap(specs, at(position), lambda start, rows: pytest.fail("nothing to replay"))


def everything(pk, **values):
    row = {field.column: None for field in Everything._meta.local_concrete_fields}
    return row | {"id": pk} | values


def seat(row, number, taken):
    return {"row": row, "number": number, "taken": taken}


def rows(store, table):
    return store.connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()


def only(store, column):
    ((value,),) = store.connection.execute(f'SELECT "{column}" FROM shop_everything').fetchall()
    return value


def test_a_store_never_filled_has_no_position_and_no_tables(store):
    assert store.position() is None
    assert store.specs() == {}


def test_insert_update_and_delete_reach_the_table(store, scribe):
    fill(store, Seat)
    end = store.apply(
        scribe.batch(
            scribe.record(Seat, "c", ["A", 1], seat("A", 1, False)),
            scribe.record(Seat, "c", ["A", 2], seat("A", 2, False)),
        ),
        expected=at(0),
    )
    assert end == store.position() == at(2)
    store.apply(
        scribe.batch(
            scribe.record(Seat, "u", ["A", 1], seat("A", 1, True)),
            scribe.record(Seat, "d", ["A", 2]),
        ),
        expected=at(2),
    )
    assert rows(store, "shop_seat") == [("A", 1, True)]


def test_the_last_of_several_changes_to_one_key_wins(store, scribe):
    fill(store, Seat)
    store.apply(
        scribe.batch(
            scribe.record(Seat, "c", ["A", 1], seat("A", 1, False)),
            scribe.record(Seat, "d", ["A", 1]),
            scribe.record(Seat, "c", ["A", 1], seat("A", 1, True)),
            scribe.record(Seat, "c", ["B", 1], seat("B", 1, True)),
            scribe.record(Seat, "d", ["B", 1]),
        ),
        expected=at(0),
    )
    assert rows(store, "shop_seat") == [("A", 1, True)]


def test_a_truncate_empties_the_table_and_what_follows_it_stays(store, scribe):
    fill(store, Seat)
    store.apply(
        scribe.batch(scribe.record(Seat, "c", ["A", 1], seat("A", 1, False))), expected=at(0)
    )
    store.apply(
        scribe.batch(
            scribe.record(Seat, "c", ["A", 2], seat("A", 2, False)),
            scribe.record(Seat, "t", None),
            scribe.record(Seat, "c", ["A", 3], seat("A", 3, False)),
        ),
        expected=at(1),
    )
    assert rows(store, "shop_seat") == [("A", 3, False)]


def test_a_replayed_batch_is_refused_and_changes_nothing(store, scribe):
    fill(store, Seat)
    batch = scribe.batch(scribe.record(Seat, "c", ["A", 1], seat("A", 1, False)))
    store.apply(batch, expected=at(0))
    with pytest.raises(PositionMoved, match="another applier"):
        store.apply(batch, expected=at(0))
    assert rows(store, "shop_seat") == [("A", 1, False)]
    assert store.position() == at(1)


def test_of_two_appliers_on_one_position_only_one_writes(store, scribe):
    """The second one's transaction is open while the first commits."""
    fill(store, Seat)
    other = new_store(store.place.path)
    first = scribe.batch(scribe.record(Seat, "c", ["A", 1], seat("A", 1, False)))
    second = Batch(first.rows, first.start, first.end)
    assert other.position() == at(0)
    other.connection.begin()
    other.connection.execute("SELECT count(*) FROM shop_seat").fetchall()
    store.apply(first, expected=at(0))
    other.connection.rollback()
    with pytest.raises(PositionMoved):
        other.apply(second, expected=at(0))
    assert rows(store, "shop_seat") == [("A", 1, False)]


def test_a_reader_in_a_transaction_sees_all_of_a_batch_or_nothing(store, scribe):
    fill(store, Seat, Everything)
    reader = ownership.connect(store.place)
    reader.begin()
    count = "SELECT (SELECT count(*) FROM shop_seat) + (SELECT count(*) FROM shop_everything)"
    assert reader.execute(count).fetchall() == [(0,)]
    store.apply(
        scribe.batch(
            scribe.record(Seat, "c", ["A", 1], seat("A", 1, False)),
            scribe.record(Everything, "c", [1], everything(1)),
        ),
        expected=at(0),
    )
    assert reader.execute(count).fetchall() == [(0,)]
    reader.commit()
    assert reader.execute(count).fetchall() == [(2,)]


def test_records_of_tables_the_store_does_not_hold_only_move_the_position(store, scribe):
    fill(store, Seat)
    store.apply(scribe.batch(scribe.record(Order, "c", [1], "{}")), expected=at(0))
    assert store.position() == at(1)


def test_a_record_of_another_shape_is_drift_and_nothing_is_written(store, scribe):
    fill(store, Seat, Everything)
    batch = scribe.batch(
        scribe.record(Seat, "c", ["A", 1], seat("A", 1, False)),
        scribe.record(Everything, "c", [1], everything(1), fingerprint="0" * 12),
    )
    with pytest.raises(SchemaDrift, match=r"shop\.Everything") as caught:
        store.apply(batch, expected=at(0))
    assert caught.value.labels == {"shop.Everything"}
    assert rows(store, "shop_seat") == []
    assert store.position() == at(0)


def test_a_forgotten_record_removes_its_row(store, scribe):
    fill(store, Seat)
    store.apply(
        scribe.batch(
            scribe.record(Seat, "c", ["A", 1], None), scribe.record(Seat, "u", ["A", 2], None)
        ),
        expected=at(0),
    )
    assert rows(store, "shop_seat") == []


ANY_UUID = UUID("9f1c0000-0000-4000-8000-0000000000ff")
EXACT = [
    ("big", "-9223372036854775808", -9223372036854775808),
    ("big", "9223372036854775807", 9223372036854775807),
    ("positive", "0", 0),
    ("flag", "false", False),
    ("flag", "true", True),
    ("real", "0.10000000000000001", 0.1),
    ("real", "0.30000000000000004", 0.1 + 0.2),
    ("real", "5e-324", 5e-324),
    ("real", "1.7976931348623157e+308", 1.7976931348623157e308),
    ("real", "7", 7.0),
    ("real", '"Infinity"', float("inf")),
    ("real", '"-Infinity"', float("-inf")),
    ("price", "99999999999.9999", Decimal("99999999999.9999")),
    ("price", "-0.0001", Decimal("-0.0001")),
    ("price", "12.50", Decimal("12.5000")),
    ("char", '""', ""),
    ("char", "null", None),
    ("char", '"12"', "12"),
    ("char", '"null"', "null"),
    ("text", '"a\\u0000b"', "a\0b"),
    ("text", '"\\ud83d\\ude00 e\\u0301 \\u202e"', "😀 e\u0301 \u202e"),
    ("text", '"\\"big\\": 3.7, \\\\ \\n"', '"big": 3.7, \\ \n'),
    ("text", json.dumps('{"big":3.7,"flag":2}'), '{"big":3.7,"flag":2}'),
    ("text", json.dumps("x" * 3_000_000), "x" * 3_000_000),
    ("day", '"2026-02-28"', date(2026, 2, 28)),
    ("day", '"0001-01-01"', date(1, 1, 1)),
    ("day", '"9999-12-31"', date(9999, 12, 31)),
    ("clock", '"08:30:00.000001"', time(8, 30, 0, 1)),
    ("clock", '"23:59:59.999999"', time(23, 59, 59, 999999)),
    ("moment", '"2026-11-21T08:30:00.123456+00:00"', datetime(2026, 11, 21, 8, 30, 0, 123456)),
    ("moment", '"2026-11-21T08:30:00"', datetime(2026, 11, 21, 8, 30)),
    ("moment", '"2026-11-21 08:30:00Z"', datetime(2026, 11, 21, 8, 30)),
    ("moment", '"0001-01-01T00:00:00+00:00"', datetime(1, 1, 1)),
    ("span", "5400000001", timedelta(seconds=5400, microseconds=1)),
    ("span", "-1", timedelta(microseconds=-1)),
    ("span", "86399999999999999", timedelta(microseconds=86399999999999999)),
    ("ident", '"9f1c0000-0000-4000-8000-0000000000ff"', ANY_UUID),
    ("blob", '"\\\\x"', b""),
    ("blob", '"\\\\x00ff5c78"', b"\x00\xff\\x"),
    ("data", '"{\\"a\\": 1.10, \\"b\\": null}"', '{"a": 1.10, "b": null}'),
    ("data", '"null"', "null"),
    ("data", "null", None),
]  # fmt: skip


@pytest.mark.parametrize(("column", "image", "value"), EXACT)
def test_every_kind_arrives_exactly(store, scribe, column, image, value):
    fill(store, Everything)
    row = json.dumps(everything(1, **{column: "@"})).replace('"@"', image)
    store.apply(scribe.batch(scribe.record(Everything, "c", [1], row)), expected=at(0))
    found = only(store, column)
    assert found == value
    assert type(found) is type(value)


def test_nan_arrives_as_nan(store, scribe):
    fill(store, Everything)
    row = everything(1, real="NaN")
    store.apply(scribe.batch(scribe.record(Everything, "c", [1], row)), expected=at(0))
    assert store.connection.execute("SELECT isnan(real) FROM shop_everything").fetchall() == [
        (True,)
    ]


WRONG = [
    ("big", "9223372036854775808"),
    ("big", "3.7"),
    ("big", "1e3"),
    ("big", "true"),
    ("big", '"12"'),
    ("big", '"abc"'),
    ("small", "40000"),
    ("flag", "2"),
    ("flag", '"yes"'),
    ("real", '"abc"'),
    ("real", '"12.5"'),
    ("real", "true"),
    ("price", "12.34567"),
    ("price", '"12.3"'),
    ("price", "1e2"),
    ("price", "123456789012.0"),
    ("char", "5"),
    ("char", "true"),
    ("char", '{"a": 1}'),
    ("day", '"2026-02-30"'),
    ("day", '"2026-02-28T10:00"'),
    ("day", '"epoch"'),
    ("day", '"infinity"'),
    ("clock", '"25:00:00"'),
    ("clock", '"08:30:00+02"'),
    ("clock", '"08:30:00.0000001"'),
    ("moment", '"2026-11-21T08:30:00+02:00"'),
    ("moment", '"2026-11-21T08:30:00-00:30"'),
    ("moment", '"2026-11-21T08:30:00.1234567"'),
    ("moment", '"soon"'),
    ("moment", "1763713800"),
    ("span", "1.5"),
    ("span", '"1 day"'),
    ("ident", '"9f1c"'),
    ("ident", "7"),
    ("blob", '"hello"'),
    ("blob", '"\\\\xZZ"'),
    ("data", '"{broken"'),
    ("data", '"\\"\\\\ud800\\""'),
    ("data", '{"a": 1}'),
]


@pytest.mark.parametrize("colon", [":", " : "], ids=["sqlite", "postgresql"])
@pytest.mark.parametrize(("column", "image"), WRONG)
def test_a_value_of_the_wrong_type_is_poison_and_never_a_wrong_row(
    store, scribe, column, image, colon
):
    fill(store, Everything)
    row = json.dumps(everything(1, **{column: "@"}), separators=(",", colon))
    row = row.replace('"@"', image)
    good = [scribe.record(Everything, "c", [pk], everything(pk)) for pk in range(2, 7)]
    bad = scribe.record(Everything, "c", [1], row)
    batch = scribe.batch(*good, bad)
    with pytest.raises(PoisonRecord) as caught:
        store.apply(batch, expected=at(0))
    assert set(caught.value.reasons) == {bad[0]}, caught.value.reasons
    assert repr(column) in caught.value.reasons[bad[0]]
    assert rows(store, "shop_everything") == []
    store.apply(batch, expected=at(0), skip={bad[0]})
    assert len(rows(store, "shop_everything")) == 5


def test_an_image_that_lacks_a_column_is_poison(store, scribe):
    fill(store, Everything)
    row = everything(1)
    del row["price"]
    with pytest.raises(PoisonRecord, match="price"):
        store.apply(scribe.batch(scribe.record(Everything, "c", [1], row)), expected=at(0))


def test_a_column_that_no_spec_names_is_ignored(store, scribe):
    fill(store, Seat)
    row = seat("A", 1, True) | {"added_by_a_dba": 1}
    store.apply(scribe.batch(scribe.record(Seat, "c", ["A", 1], row)), expected=at(0))
    assert rows(store, "shop_seat") == [("A", 1, True)]


def test_a_record_without_a_key_is_poison(store, scribe):
    fill(store, Seat)
    with pytest.raises(PoisonRecord, match="no key"):
        store.apply(
            scribe.batch(scribe.record(Seat, "c", None, seat("A", 1, True))), expected=at(0)
        )


def test_all_poison_of_a_batch_is_named_at_once(store, scribe):
    fill(store, Seat, Everything)
    batch = scribe.batch(
        scribe.record(Seat, "c", ["A", 1], seat("A", "one", True)),
        scribe.record(Seat, "c", ["A", 2], seat("A", 2, True)),
        scribe.record(Everything, "c", [1], everything(1, day="2026-02-30")),
        scribe.record(Everything, "c", [2], everything(2, day="2026-02-28")),
        scribe.record(Everything, "c", [3], everything(3, small=70000)),
    )
    with pytest.raises(PoisonRecord) as caught:
        store.apply(batch, expected=at(0))
    assert set(caught.value.reasons) == {0, 2, 4}


def test_composite_keys_of_any_text_find_their_rows(store, scribe):
    fill(store, Seat)
    names = ['a"b', "a'b", "a\\b", "ä", "", "😀"]
    store.apply(
        scribe.batch(*(scribe.record(Seat, "c", [n, 1], seat(n, 1, False)) for n in names)),
        expected=at(0),
    )
    store.apply(
        scribe.batch(*(scribe.record(Seat, "u", [n, 1], seat(n, 1, True)) for n in names)),
        expected=at(len(names)),
    )
    assert sorted(rows(store, "shop_seat")) == sorted((n, 1, True) for n in names)


def test_a_swap_made_elsewhere_is_noticed_before_the_next_write(store, scribe):
    """Another process rebuilt with a new shape; this applier still had the old one in mind."""
    fill(store, Seat)
    store.apply(
        scribe.batch(scribe.record(Seat, "c", ["A", 1], seat("A", 1, False))), expected=at(0)
    )
    other = new_store(store.place.path)
    spec = table_spec(Seat, ("taken",))
    other.create_shadow(spec)
    other.swap({spec.label: spec}, at(1), lambda start, rows: pytest.fail("nothing to replay"))
    old_shape = scribe.batch(scribe.record(Seat, "c", ["A", 2], seat("A", 2, False)))
    with pytest.raises(SchemaDrift):
        store.apply(old_shape, expected=at(1))


def test_the_specs_survive_in_the_store(store):
    fill(store, Seat, Everything)
    assert store.specs() == {
        spec.label: spec for spec in (table_spec(Everything), table_spec(Seat))
    }
