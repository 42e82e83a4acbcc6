"""A key a person typed is written as the triggers write it."""

import uuid
from datetime import date

import pytest
from django.db import models
from django.test.utils import isolate_apps

from levada.conf import Replicated
from levada.keeper.forgetting import NotForgettable, key_text, key_values
from tests.shop.models import Customer, Seat


def text_of(model, *typed):
    values = key_values(model, typed)
    return key_text(Replicated(model, (), ("analytics",)), values)


def keyed_by(field):
    with isolate_apps("tests.shop"):

        class Keyed(models.Model):  # noqa: DJ008
            code = field

            class Meta:
                app_label = "shop"

        return Keyed


def test_an_integer_is_a_number():
    assert text_of(Customer, "42") == "[42]"


def test_a_composite_key_keeps_its_order():
    assert text_of(Seat, 'A"', "7") == '["A\\"",7]'


@pytest.mark.parametrize(
    ("field", "typed", "text"),
    [
        (models.CharField(primary_key=True, max_length=9), "žluť\n", '["žluť\\n"]'),
        (
            models.UUIDField(primary_key=True),
            uuid.UUID(int=10).hex.upper(),
            f'["{uuid.UUID(int=10)}"]',
        ),
        (models.DateField(primary_key=True), "2026-11-21", f'["{date(2026, 11, 21)}"]'),
        (models.DurationField(primary_key=True), "00:00:02", "[2000000]"),
    ],
)
def test_each_kind_is_written_in_its_own_form(field, typed, text):
    assert text_of(keyed_by(field), typed) == text


def test_a_kind_with_several_forms_is_refused_by_name():
    keyed = keyed_by(models.FloatField(primary_key=True))
    with pytest.raises(NotForgettable, match=r"The key of shop\.Keyed is a float"):
        text_of(keyed, "0.1")


def test_what_is_no_value_of_the_field_is_refused():
    with pytest.raises(NotForgettable, match=r"is no key of shop\.Customer"):
        key_values(Customer, ["one"])
