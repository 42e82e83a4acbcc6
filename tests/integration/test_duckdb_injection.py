"""Names, values, keys, patterns, options: whatever stands in them, SQL takes it as that."""

import datetime
import re
import uuid

import pytest
from django.core.exceptions import FieldError
from django.db import Error, connections, models
from django.db.models import F, Value
from django.db.models.fields.json import KT
from django.db.models.functions import (
    Collate,
    Concat,
    Extract,
    Left,
    LPad,
    Replace,
    StrIndex,
    Trunc,
    TruncDate,
)
from django.test.utils import isolate_apps
from django.utils.functional import SimpleLazyObject
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from levada.stores.duckdb.parameters import is_quoted, literal
from tests.integration.duckdb_alias import alias_with
from tests.shop.models import Everything, Tag

PAYLOADS = [
    "'; DROP TABLE canary; --",
    '"; DROP TABLE canary; --',
    '" (a INT); DROP TABLE canary; CREATE TABLE "x',
    '"a"; DROP TABLE canary; SELECT "b"',
    "') ; DROP TABLE canary; --",
    "\\'; DROP TABLE canary; --",
    "%s; DROP TABLE canary; --",
    "%(x)s",
    "$1",
    "?",
    "{0}",
    "/* */ ; DELETE FROM canary",
    "$$; DROP TABLE canary; $$",
    "\n; DROP TABLE canary;\n--",
    "x' || (SELECT max(a) FROM canary) || '",
]
nasty = st.text("'\"\\%_$?;:(){}[]-/*.,#@|`~^&=<> \n\taB1é🦆", min_size=1, max_size=24)
texts = st.one_of(st.sampled_from(PAYLOADS), nasty)
# Nor can a name hold a percent sign: Django formats names into its SQL with `%`.
names = texts.filter(lambda name: not is_quoted(name) and "%" not in name)
often = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def _with_databases(django_db_blocker):
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="module")
def duck(django_db_blocker):
    with django_db_blocker.unblock(), alias_with() as duck:
        with duck.schema_editor() as editor:
            editor.create_model(Tag)
            editor.create_model(Everything)
        run("CREATE TABLE canary AS SELECT 'sings' AS a")
        duck.tables = set(duck.introspection.table_names())
        yield duck


@pytest.fixture(autouse=True)
def _canary(duck):
    yield
    sings()


def sings():
    """Check that the canary is alive, and that nothing was made beside it."""
    assert run("SELECT a FROM canary") == [("sings",)]
    assert set(connections["duck"].introspection.table_names()) == connections["duck"].tables


def run(sql, params=None):
    with connections["duck"].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


@often
@given(
    table=names, columns=st.lists(names, min_size=2, max_size=2, unique_by=str.lower),
    index=names, constraint=names, comment=texts, default=texts, value=texts,
)  # fmt: skip
@example(
    table=PAYLOADS[1], columns=[PAYLOADS[1], PAYLOADS[2]], index=PAYLOADS[1],
    constraint=PAYLOADS[0], comment=PAYLOADS[0], default=PAYLOADS[0], value=PAYLOADS[0],
)  # fmt: skip
def test_names_comments_and_defaults_of_tables(
    duck, table, columns, index, constraint, comment, default, value
):
    assume(table.lower() not in duck.tables and "id" not in map(str.lower, columns))
    assume(index.lower() != constraint.lower())
    with isolate_apps("tests.shop"):

        class Odd(models.Model):
            one = models.CharField(max_length=99, db_column=columns[0], db_comment=comment)
            two = models.TextField(db_column=columns[1], db_default=default)

            class Meta:
                app_label = "shop"
                db_table = table
                db_table_comment = comment
                indexes = [models.Index(fields=["one"], name=index)]
                constraints = [models.UniqueConstraint(fields=["one", "two"], name=constraint)]

            def __str__(self):
                return self.one

        added = models.TextField(default=default, db_column=f"{columns[0]}+")
        added.set_attributes_from_name("three")
        added.model = Odd
        altered = models.TextField(null=True, db_column=columns[0], db_comment=comment)
        altered.set_attributes_from_name("one")
        altered.model = Odd
        with duck.schema_editor() as editor:
            editor.create_model(Odd)
        try:
            made = Odd.objects.using("duck").create(one=value)
            with duck.schema_editor() as editor:
                editor.add_field(Odd, added)
                editor.alter_field(Odd, Odd._meta.get_field("one"), altered)
            found = Odd.objects.using("duck").values_list("one", "two").get(pk=made.pk)
            assert found == (value, default)
            three = connections["duck"].ops.quote_name(added.column)
            quoted = connections["duck"].ops.quote_name(table)
            assert run(f"SELECT {three} FROM {quoted}") == [(default,)]
            with duck.cursor() as cursor:
                fields = duck.introspection.get_table_description(cursor, table)
                assert [each.name for each in fields] == ["id", *columns, added.column]
                assert {each.comment for each in fields if each.name == columns[0]} == {comment}
                duck.introspection.get_constraints(cursor, table)
            for sql in duck.ops.sql_flush(_Style(), [table], reset_sequences=True):
                run(sql)
            assert not Odd.objects.using("duck").exists()
            with duck.schema_editor() as editor:
                editor.remove_field(Odd, added)
                editor.alter_db_table(Odd, table, f"{table}2")
                editor.alter_db_table(Odd, f"{table}2", table)
        finally:
            with duck.schema_editor() as editor:
                editor.delete_model(Odd)
    sings()


class _Style:
    def __getattr__(self, name):
        return str


@often
@given(name=texts)
@example(name='a"; DROP TABLE canary; SELECT "b')
def test_a_name_in_quotes_is_one_name(duck, name):
    """Django hands on a `db_table` with its own quotes; what lies between them is no SQL."""
    quoted = duck.ops.quote_name(f'"{name}"')
    run(f"CREATE TABLE {quoted} (a INTEGER)")
    run(f"DROP TABLE {quoted}")
    sings()


def test_a_name_may_be_lazy(duck):
    """Django's own models have lazy collations."""
    assert duck.ops.quote_name(SimpleLazyObject(lambda: "noaccent")) == '"noaccent"'


@often
@given(text=texts, other=texts)
@example(text="50%_\\", other="%")
def test_values_and_patterns_are_what_they_are(duck, text, other):
    run("DELETE FROM shop_tag")
    Tag.objects.using("duck").bulk_create([Tag(name=text), Tag(name=f"{other}·{text}·{other}")])
    tags = Tag.objects.using("duck")
    assert tags.get(name=text).name == text
    stored = list(tags.values_list("name", flat=True))
    for lookup, holds in {
        "contains": lambda name: other in name,
        "startswith": lambda name: name.startswith(other),
        "endswith": lambda name: name.endswith(other),
        "regex": lambda name: re.search(re.escape(other), name) is not None,
    }.items():
        pattern = re.escape(other) if lookup == "regex" else other
        found = tags.filter(**{f"name__{lookup}": pattern}).values_list("name", flat=True)
        assert sorted(found) == sorted(filter(holds, stored)), lookup
    assert tags.filter(name__icontains=text).count() >= 1
    assert sorted(tags.filter(name__contains=F("name")).values_list("name", flat=True)) == sorted(
        stored
    )
    assert tags.filter(name__in=[text, other]).count() >= 1
    assert run("SELECT %s, %s", [text, other]) == [(text, other)]
    assert run("SELECT %(a)s", {"a": text}) == [(text,)]
    row = Tag.objects.using("duck").raw("SELECT id, name, %s AS given FROM shop_tag", [text])[0]
    assert row.given == text
    extra = tags.extra(
        select={"given": "%s"}, select_params=[text], where=["name = %s"], params=[text]
    )
    assert [each.given for each in extra] == [text]


@often
@given(text=texts, other=texts)
def test_arguments_of_functions_are_what_they_are(duck, text, other):
    run("DELETE FROM shop_tag")
    tag = Tag.objects.using("duck").create(name=text)
    found = Tag.objects.using("duck").values_list(
        Concat("name", Value(other)), Replace("name", Value(text), Value(other)),
        StrIndex("name", Value(text)), Left("name", 1), LPad(Value(other), 30, Value("'")),
        Value(other),
    ).get(pk=tag.pk)  # fmt: skip
    assert found == (text + other, other, 1, text[:1], other[:30].rjust(30, "'"), other)


@often
@given(key=texts, value=texts)
@example(key="*", value="x")
@example(key="\n\x01", value="x")
@example(key='a"\\', value="x")
def test_json_paths_and_keys_are_what_they_are(duck, key, value):
    assume("__" not in key and key.strip("_") == key and not re.fullmatch(r"\s*-?\d+\s*", key))
    things = Everything.objects.using("duck")
    things.all().delete()
    thing = things.create(data={key: value, "list": [{key: value}]})
    assert things.get(data__has_key=key).data == {key: value, "list": [{key: value}]}
    assert things.filter(data__has_keys=[key, "list"]).count() == 1
    assert things.filter(data__has_any_keys=[key]).count() == 1
    assert things.filter(data__contains={key: value}).count() == 1
    assert things.filter(**{f"data__{key}": value}).count() == 1
    assert things.filter(**{f"data__list__0__{key}": value}).count() == 1
    assert things.filter(**{f"data__{key}__contains": value}).count() == 1
    assert not things.filter(data__has_key=f"{key}+").exists()
    assert things.annotate(found=KT(f"data__{key}")).get(pk=thing.pk).found == value
    assert things.order_by(f"data__{key}").get() == thing


@often
@given(alias=names)
def test_an_alias_is_a_name_or_refused(duck, alias):
    run("DELETE FROM shop_tag")
    Tag.objects.using("duck").create(name="x")
    try:
        found = Tag.objects.using("duck").values(**{alias: F("name")})
        assert found.get() == {alias: "x"}
    except (ValueError, FieldError):  # Django refuses it before SQL is made
        pass
    sings()


@often
@given(name=texts)
def test_a_collation_a_part_of_a_date_and_an_option_is_known_or_refused(duck, name):
    moment = Value(
        datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC), output_field=models.DateTimeField()
    )
    tags = Tag.objects.using("duck")
    tags.get_or_create(name="x")
    for refused in (
        lambda: list(tags.annotate(found=Collate("name", name))),
        lambda: list(tags.annotate(found=Trunc(moment, name, output_field=models.DateTimeField()))),
        lambda: list(tags.annotate(found=Extract(moment, name))),
        lambda: tags.explain(format=name),
        lambda: tags.explain(**{name: True}),
    ):
        with pytest.raises((Error, ValueError, FieldError, TypeError, NotImplementedError)):
            refused()
        sings()


@often
@given(value=st.one_of(texts, st.integers(), st.none()))
def test_the_value_of_an_option_of_explain_is_no_sql(duck, value):
    try:
        Tag.objects.using("duck").explain(analyze=value)
        Tag.objects.using("duck").explain(verbose=value)
    except (Error, ValueError):
        pass
    sings()


@often
@given(name=texts)
def test_the_name_of_a_time_zone_is_no_sql(duck, name):
    class Zone(datetime.tzinfo):
        def __str__(self):
            return name

        def utcoffset(self, at):
            return datetime.timedelta(0)

        dst = utcoffset

        def tzname(self, at):
            return name

    Everything.objects.using("duck").create(moment=datetime.datetime(2026, 11, 21, tzinfo=Zone()))
    things = Everything.objects.using("duck").filter(moment__isnull=False)
    with pytest.raises((Error, ValueError)):
        list(things.annotate(day=TruncDate("moment", tzinfo=Zone())))
    sings()


def test_a_collation_of_a_column_is_known_or_refused(duck):
    for name in PAYLOADS:
        with isolate_apps("tests.shop"):

            class Sorted(models.Model):
                text = models.TextField(db_collation=name)

                class Meta:
                    app_label = "shop"

                def __str__(self):
                    return self.text

            def make(model=Sorted):
                with duck.schema_editor() as editor:
                    editor.create_model(model)

            with pytest.raises(Error):
                make()
        sings()


@often
@given(
    value=st.one_of(
        texts, st.binary(max_size=9), st.integers(-(2**127), 2**128 - 1), st.booleans(), st.none(),
        st.floats(allow_nan=False), st.decimals(-9999, 9999, places=4), st.uuids(),
        st.dates(), st.datetimes(), st.times(),
        st.timedeltas(datetime.timedelta(-9999), datetime.timedelta(9999)),
    )
)  # fmt: skip
def test_a_literal_is_the_value(duck, value):
    ((found,),) = run(f"SELECT {literal(value)}".replace("%", "%%"), [])
    assert found == value or uuid.UUID(str(found)) == value
