"""List, struct and map columns: made by migrations, written, read and looked into."""

import datetime
import json
import uuid
from decimal import Decimal

import pytest
from django.core import checks, serializers
from django.core.exceptions import ValidationError
from django.db import NotSupportedError, connection, models
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.writer import MigrationWriter
from django.db.models import F
from django.forms import modelform_factory
from django.test.utils import isolate_apps

from levada.stores.duckdb.fields import ListField, MapField, StructField

from .test_duckdb_backend import UTC, duck  # noqa: F401

FARE = {
    "net": models.DecimalField(max_digits=8, decimal_places=2),
    "currency": models.CharField(max_length=3),
    "paid at": models.DateTimeField(),
}


@pytest.fixture
def trips(duck):  # noqa: F811
    with isolate_apps("tests.shop"):

        class Trip(models.Model):
            stops = ListField(models.CharField(max_length=40), default=list)
            seen = ListField(models.DateTimeField(), null=True)
            grid = ListField(ListField(models.IntegerField()), null=True)
            data = ListField(models.JSONField(), null=True)
            fare = StructField(FARE, null=True)
            tags = MapField(models.CharField(max_length=20), models.IntegerField(), null=True)
            days = MapField(models.DateField(), models.UUIDField(), null=True)

            class Meta:
                app_label = "shop"
                required_db_vendor = "duckdb"

            def __str__(self):
                return str(self.pk)

        with duck.schema_editor() as editor:
            editor.create_model(Trip)
        yield Trip.objects.using("duck")


SEEN = datetime.datetime(2026, 3, 1, 12, 30, 0, 5, tzinfo=UTC)
FULL = {
    "stops": ["Funchal", "it's 100%", ""],
    "seen": [SEEN, None],
    "grid": [[1, 2], [], [3]],
    "data": [{"a": [1, None]}, 5, "x"],
    "fare": {"net": Decimal("12.50"), "currency": "EUR", "paid at": SEEN},
    "tags": {"red": 1, "it's": 2, "%s": None},
    "days": {datetime.date(2026, 3, 1): uuid.UUID(int=7)},
}


def values_of(trip):
    return {name: getattr(trip, name) for name in FULL}


@pytest.mark.parametrize("count", [1, 40])
def test_values_come_back_as_they_went(trips, count):
    model = trips.model
    trips.bulk_create([model(**FULL) for _ in range(count)])
    trips.bulk_create([model() for _ in range(count)])
    read = list(trips.order_by("pk"))
    assert [values_of(trip) for trip in read[:count]] == [FULL] * count
    assert values_of(read[-1]) == {**dict.fromkeys(FULL), "stops": []}
    assert trips.filter(**FULL).count() == count


def test_values_are_updated_in_every_way(trips):
    trip = trips.create(**FULL)
    trip.tags, trip.fare = {}, {"currency": "USD"}
    trip.save()
    read = trips.get()
    assert read.tags == {}
    assert read.fare == {"net": None, "currency": "USD", "paid at": None}
    trips.update(grid=[[9]], stops=["a"])
    trip = trips.get()
    assert (trip.grid, trip.stops) == ([[9]], ["a"])
    trip.stops, trip.days = ["b", "c"], {datetime.date(2020, 1, 1): None}
    trips.bulk_update([trip], ["stops", "days"])
    assert trips.get().stops == ["b", "c"]
    assert trips.get().days == {datetime.date(2020, 1, 1): None}


def test_lists_are_looked_into(trips):
    for stops in (["a", "b", "c"], ["b"], [], ["c", "a"]):
        trips.create(stops=stops)

    def found(**lookup):
        return sorted(len(trip.stops) for trip in trips.filter(**lookup))

    assert found(stops__contains=["a", "c"]) == [2, 3]
    assert found(stops__contains=[]) == [0, 1, 2, 3]
    assert found(stops__contained_by=["a", "c"]) == [0, 2]
    assert found(stops__overlap=["b", "z"]) == [1, 3]
    assert found(stops__overlap=[]) == []
    assert found(stops__len=3) == [3]
    assert found(stops__len__gte=1) == [1, 2, 3]
    assert found(stops__0="c") == [2]
    assert found(stops__7=None) == found(stops__7__isnull=True) == [0, 1, 2, 3]
    assert found(stops__1__startswith="b") == [3]
    assert found(stops__0_2=["a", "b"]) == [3]
    assert found(stops=[]) == [0]
    assert found(stops__in=[["b"], ["c", "a"]]) == [1, 2]
    assert trips.order_by("stops").values_list("stops", flat=True).first() == []
    assert trips.annotate(first=F("stops__0")).filter(first="b").count() == 1


def test_structs_are_looked_into(trips):
    trips.create(fare={"net": Decimal("5.00"), "currency": "EUR", "paid at": SEEN})
    trips.create(fare={"net": Decimal("9.00"), "currency": "USD"})
    trips.create()
    assert trips.filter(fare__currency="EUR").count() == 1
    assert trips.filter(fare__net__gt=4).count() == 2
    assert trips.get(**{"fare__paid at__year": 2026}).fare["net"] == 5
    assert trips.filter(fare__isnull=True).count() == 1
    assert trips.filter(fare={"currency": "USD", "net": Decimal(9)}).count() == 1
    assert trips.aggregate(net=models.Sum("fare__net")) == {"net": Decimal(14)}
    paid = trips.exclude(fare=None).annotate(paid=F("fare__paid at")).order_by("fare__net")
    seen = paid.values_list("paid", flat=True)
    assert list(seen) == [SEEN, None]
    with pytest.raises(ValidationError, match="no key 'gross'"):
        trips.create(fare={"gross": 1})


def test_maps_are_looked_into(trips):
    trips.create(tags={"red": 1, "it's %s": 2}, days={datetime.date(2026, 1, 1): uuid.UUID(int=1)})
    trips.create(tags={"blue": 1})
    trips.create(tags={})
    assert trips.filter(tags__red=1).count() == 1
    assert trips.filter(**{"tags__it's %s__gt": 1}).count() == 1
    assert trips.filter(tags__has_key="blue").count() == 1
    assert trips.filter(tags__len=0).count() == 1
    assert trips.filter(tags__keys__contains=["red"]).count() == 1
    assert trips.filter(tags__values__overlap=[1]).count() == 2
    assert trips.filter(tags={}).count() == 1
    assert trips.filter(tags={"blue": 1}).count() == 1
    assert trips.filter(**{"days__2026-01-01": uuid.UUID(int=1)}).count() == 1
    assert list(trips.values_list("tags__keys", flat=True).filter(tags__len=1)) == [["blue"]]


@pytest.mark.parametrize(
    ("name", "value"),
    [("stops", "Funchal"), ("stops", {"a": 1}), ("fare", [1]), ("tags", ["red"])],
)
def test_what_has_another_shape_is_refused(trips, name, value):
    with pytest.raises(ValidationError, match="was given"):
        trips.create(**{name: value})


def test_each_value_is_validated_by_its_own_field(trips):
    model = trips.model
    model(**FULL).clean_fields(exclude=["seen", "stops", "tags"])
    for broken in (
        {"stops": ["x" * 41]},
        {"grid": [["no number"]]},
        {"fare": {"currency": "EURO"}},
        {"tags": {"x" * 21: 1}},
    ):
        others = [field.name for field in model._meta.fields if field.name not in broken]
        with pytest.raises(ValidationError):
            model(**broken).clean_fields(exclude=others)


def test_a_fixture_holds_them(trips):
    trips.create(**FULL)
    text = serializers.serialize("json", trips.all())
    json.loads(text)
    fields = trips.model._meta.fields
    read = {
        field.name: field.to_python(json.loads(text)[0]["fields"][field.name])
        for field in fields
        if field.name in FULL
    }
    assert read == FULL


def test_a_form_leaves_them_out(trips):
    form = modelform_factory(trips.model, fields="__all__")
    assert list(form.base_fields) == []


def test_migrations_write_and_change_them(trips, duck):  # noqa: F811
    def state(model_state):
        made = ProjectState()
        made.add_model(model_state)
        return made

    wanted = state(ModelState.from_model(trips.model))
    changes = MigrationAutodetector(ProjectState(), wanted)._detect_changes()
    text = MigrationWriter(changes["shop"][0]).as_string()
    names = {}
    exec(compile(text, "migration", "exec"), names)
    again = names["Migration"].operations[0]
    after = ModelState("shop", again.name, again.fields, again.options)
    before = state(ModelState.from_model(trips.model))
    assert MigrationAutodetector(before, state(after))._detect_changes() == {}
    assert after.options["required_db_vendor"] == "duckdb"

    trips.create(stops=["a"])
    added = ListField(models.IntegerField(), default=[1, 2])
    added.set_attributes_from_name("numbers")
    named = StructField({"it's": models.CharField(max_length=9)}, default={"it's": "100%"})
    named.set_attributes_from_name("named")
    counted = MapField(models.CharField(max_length=9), models.IntegerField(), default={"a'": 1})
    counted.set_attributes_from_name("counted")
    with duck.schema_editor() as editor:
        for field in (added, named, counted):
            field.model = trips.model
            editor.add_field(trips.model, field)
    row = duck.connection.fetch_arrow("SELECT numbers, named, counted, stops FROM shop_trip")
    assert row.to_pylist() == [
        {"numbers": [1, 2], "named": {"it's": "100%"}, "counted": [("a'", 1)], "stops": ["a"]}
    ]


@pytest.mark.django_db
@isolate_apps("tests.shop")
def test_another_database_is_refused_by_check_and_by_migrate():
    class Elsewhere(models.Model):
        stops = ListField(models.CharField(max_length=4))

        class Meta:
            app_label = "shop"

        def __str__(self):
            return str(self.pk)

    (error,) = Elsewhere.check(databases=["default"])
    assert (error.id, "required_db_vendor" in error.hint) == ("levada.E062", True)
    with pytest.raises(NotSupportedError, match="required_db_vendor"):
        Elsewhere._meta.get_field("stops").db_type(connection)
    Elsewhere._meta.required_db_vendor = "duckdb"
    assert Elsewhere.check(databases=["default"]) == []
    assert Elsewhere._meta.can_migrate(connection) is False


@isolate_apps("tests.shop")
def test_parts_are_checked():
    class Odd(models.Model):
        first = ListField(models.ForeignKey("self", models.CASCADE))
        second = ListField(models.CharField(max_length=0))

        class Meta:
            app_label = "shop"

        def __str__(self):
            return str(self.pk)

    errors = [each for each in Odd.check() if isinstance(each, checks.Error)]
    assert [each.id for each in errors] == ["levada.E061", "fields.E121"]
    assert "base_field" in errors[1].msg


@pytest.mark.parametrize(
    "fields",
    [{}, {1: models.IntegerField()}, {"a": FARE["net"], "A": FARE["net"]}, {"key": 1, "value": 2}],
)
def test_a_struct_that_duckdb_cannot_tell_is_refused(fields):
    with pytest.raises(ValueError, match=r"(?i)struct|key"):
        StructField(fields)


def test_lists_are_compared_with_each_other(trips):
    trips.create(stops=["a", "b"], grid=[[1]])
    trips.create(stops=["b"], grid=[])
    assert trips.filter(stops__contains=F("stops")).count() == 2
    assert trips.filter(grid__0=F("grid__0")).count() == 1
    same = trips.annotate(both=F("stops")).filter(both=F("stops"), both__overlap=F("stops"))
    assert same.count() == 2
