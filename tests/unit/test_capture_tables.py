"""Which fields a table spec takes, and which it refuses by name."""

import pytest
from django.contrib.postgres.fields import ArrayField, HStoreField, IntegerRangeField
from django.db import models
from django.test import override_settings
from django.test.utils import isolate_apps

from levada.conf import replicated
from levada.errors import UnsupportedModel
from levada.tables import TableSpec, table_spec
from tests.shop.models import Book, Customer, Everything, Order, Seat


def replicating(**entries):
    return override_settings(LEVADA={"REPLICATE": {"analytics": entries}})


class Euros(models.DecimalField):
    """A project's own field that keeps Django's column."""

    def from_db_value(self, value, expression, connection):
        return value


class Geometry(models.TextField):
    """A project's own field that has a column of its own."""

    def db_type(self, connection):
        return "geometry"


class ShortText(models.CharField):
    def db_type_parameters(self, connection):
        return {"max_length": 3}


def spec_of(field, **others):
    with isolate_apps("tests.shop"):
        body = {"field": field, **others, "__module__": __name__}
        body["Meta"] = type("Meta", (), {"app_label": "shop"})
        return table_spec(type("Sample", (models.Model,), body))


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        (models.EmailField(), "text"),
        (models.URLField(), "text"),
        (models.ImageField(), "text"),
        (models.CharField(max_length=3), "text"),
        (models.PositiveSmallIntegerField(), "integer"),
        (models.GenericIPAddressField(), "text"),
        (models.JSONField(), "json"),
        (Euros(max_digits=9, decimal_places=2), "decimal"),
        (models.ForeignKey(Order, models.CASCADE), "integer"),
        (models.OneToOneField(Order, models.CASCADE), "integer"),
        (models.ForeignKey(Order, models.CASCADE, to_field="number"), "uuid"),
        (models.ForeignKey(Book, models.CASCADE), "integer"),
        (
            models.GeneratedField(
                expression=models.F("id"),
                output_field=models.DateTimeField(),
                db_persist=True,
            ),
            "timestamp",
        ),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, models.Field) else "",
)
def test_a_field_of_django_is_taken(field, kind):
    assert spec_of(field).columns[-1].kind == kind


@pytest.mark.parametrize(
    "field",
    [
        ArrayField(models.IntegerField()),
        HStoreField(),
        IntegerRangeField(),
        Geometry(),
        ShortText(max_length=9),
        models.GeneratedField(
            expression=models.F("id"),
            output_field=ArrayField(models.IntegerField()),
            db_persist=True,
        ),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_field_with_a_column_type_of_its_own_is_refused_by_name(field):
    with pytest.raises(UnsupportedModel, match=r"shop\.Sample\.field is a .*Exclude it"):
        spec_of(field)


def test_an_excluded_field_may_have_any_type():
    with isolate_apps("tests.shop"):

        class Sample(models.Model):
            field = ArrayField(models.IntegerField())

            class Meta:
                app_label = "shop"

            def __str__(self):
                return ""

        assert [column.name for column in table_spec(Sample, ("field",)).columns] == ["id"]


def test_the_key_cannot_be_excluded():
    with pytest.raises(UnsupportedModel, match="primary key"):
        table_spec(Customer, ("id",))


def test_a_field_that_does_not_exist_cannot_be_excluded():
    with pytest.raises(UnsupportedModel, match=r"no field 'pasword'.*password"):
        table_spec(Customer, ("pasword",))


def test_a_composite_key_keeps_its_order():
    assert table_spec(Seat).key == ("row", "number")


def test_a_spec_survives_its_json():
    spec = table_spec(Everything, ("blob",))
    assert TableSpec.from_json(spec.to_json()) == spec
    assert TableSpec.from_json(spec.to_json()).fingerprint == spec.fingerprint
    assert table_spec(Everything).fingerprint != spec.fingerprint


def test_parents_and_through_tables_join_by_themselves():
    with replicating(**{"shop.Book": {}, "shop.Order": {}}):
        assert set(replicated()) == {"shop.Book", "shop.Product", "shop.Order", "shop.Order_tags"}


def test_an_inherited_field_is_excluded_from_the_parents_table():
    with replicating(**{"shop.Book": {"exclude": ["price", "pages"]}}):
        specs = {label: each.spec for label, each in replicated().items()}

    assert specs["shop.Product"].excluded == ("price",)
    assert specs["shop.Book"].excluded == ("pages",)


def test_an_excluded_many_to_many_field_leaves_out_its_table():
    with replicating(**{"shop.Order": {"exclude": ["tags"]}}):
        found = replicated()

    assert set(found) == {"shop.Order"}
    assert found["shop.Order"].spec.excluded == ()


def test_a_field_excluded_for_one_store_is_excluded_for_all():
    stores = {"one": {"shop.Customer": {"exclude": ["password"]}}, "two": ["shop.Customer"]}
    with override_settings(LEVADA={"REPLICATE": stores}):
        assert replicated()["shop.Customer"].spec.excluded == ("password",)
        assert replicated()["shop.Customer"].stores == ("one", "two")
