"""Whatever text is a key, a bin, a value or a file's name: it stays text."""

import uuid

import pyarrow
import pyarrow.parquet
from django.db import models
from django.db.models import Count
from django.test.utils import isolate_apps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from levada.stores.duckdb.aggregates import Histogram
from levada.stores.duckdb.fields import MapField, StructField
from levada.stores.duckdb.files import Parquet
from levada.stores.duckdb.loading import bulk_load
from levada.stores.duckdb.parameters import literal
from tests.shop.models import Tag

from .test_duckdb_backend import duck  # noqa: F401

TEXT = st.text(
    st.one_of(st.sampled_from("'\"%$?;-*/\\\n(){}[]:"), st.characters(codec="utf-8")), max_size=12
).filter(lambda text: "\x00" not in text)
ANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(text=TEXT)
@ANY
def test_as_a_bin_and_as_a_pivoted_value(duck, text):  # noqa: F811
    tags = Tag.objects.using("duck")
    tags.all().delete()
    bulk_load(Tag, pyarrow.table({"name": [text, f"{text}x"]}), using="duck")
    assert tags.filter(name=text).aggregate(n=Histogram("name", [text])) == {"n": {text: 1}}
    (row,) = tags.filter(name=text).values("pk").pivot("name", [text], n=Count("pk"))
    assert list(row.values())[1] == 1
    assert tags.count() == 2


@given(text=TEXT.filter(bool))
@ANY
def test_as_a_key_and_as_a_default(duck, text):  # noqa: F811
    with isolate_apps("tests.shop"):

        class Odd(models.Model):
            shape = StructField({text: models.TextField()}, default={text: text})
            tags = MapField(models.TextField(), models.TextField(), default={text: text})

            class Meta:
                app_label = "shop"
                db_table = f"odd_{uuid.uuid4().hex}"

            def __str__(self):
                return str(self.pk)

        odd = Odd.objects.using("duck")
        with duck.schema_editor() as editor:
            editor.create_model(Odd)
        made = odd.create()
        made.refresh_from_db()
        assert (made.shape, made.tags) == ({text: text}, {text: text})
        if "__" not in text and not text.endswith("_"):
            assert odd.filter(**{f"shape__{text}": text}).count() == 1
            assert odd.filter(tags__has_key=text).count() == 1
        assert odd.to_arrow()["shape"].to_pylist() == [{text: text}]
        with duck.schema_editor() as editor:
            editor.delete_model(Odd)


@given(text=TEXT)
@ANY
def test_as_a_literal(duck, text):  # noqa: F811
    value = {"key": [text], "value": [[{"a": text}]]}
    (told,) = duck.connection.execute(f"SELECT {literal(value)}").fetchone()
    assert told == {text: [{"a": text}]}


@given(text=TEXT.filter(lambda text: "/" not in text and text.strip(". ")))
@ANY
def test_as_the_name_of_a_file(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / f"{text[:40]}.parquet"
    try:
        pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)
    except OSError:
        return  # no name for this file system
    sql, params = Parquet(path).sql()
    assert sql == "read_parquet(%s)"
    assert params == [[str(path)]]
