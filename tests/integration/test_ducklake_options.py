"""What a lake's settings refuse, on any DuckDB; a lake itself is in test_ducklake.py."""

from types import SimpleNamespace

import duckdb
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import NotSupportedError, models
from django.test.utils import isolate_apps, override_settings

from levada.errors import MissingExtension
from levada.stores.duckdb import extensions
from levada.stores.duckdb.ducklake import lake as lakes
from levada.stores.duckdb.ducklake.lake import EXTENSIONS, lake_of
from tests.integration.duckdb_alias import alias_with

SERVER = "postgresql://web:s%40fe@db.example:5433/shop?sslmode=require"


def given(**options):
    return {"ducklake": {"catalog": SERVER, "data_path": "lake", **options}}


def has_extensions():
    try:
        with duckdb.connect() as connection:
            extensions.load(connection, EXTENSIONS)
    except MissingExtension:
        return False
    return True


@pytest.mark.skipif(has_extensions(), reason="this DuckDB has the extensions of a lake")
def test_a_duckdb_without_the_extensions_says_which_and_how_to_have_them(django_db_blocker):
    told = rf"postgres_scanner.*pip install duckdb-extension-postgres-scanner=={duckdb.__version__}"
    with (
        django_db_blocker.unblock(),
        alias_with(given(), name="shop") as connection,
        pytest.raises(MissingExtension, match=told),
    ):
        connection.ensure_connection()


def test_an_address_is_read_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    lake = lake_of("lake", "shop", given())
    assert lake.catalog == {
        "host": "db.example", "port": 5433, "user": "web", "password": "s@fe", "database": "shop",
    }  # fmt: skip
    assert (lake.sslmode, lake.folder) == ("require", f"{tmp_path}/lake/shop/")
    assert "s@fe" not in lake.path


def test_an_alias_of_django_is_read(monkeypatch):
    engine = "django.db.backends.postgresql"
    configured = {"default": {"ENGINE": engine, "NAME": "shop", "HOST": "", "PORT": ""}}
    monkeypatch.setattr(lakes, "settings", SimpleNamespace(DATABASES=configured))
    lake = lake_of("lake", "shop", given(catalog="default", data_path="s3://bucket/lake/"))
    assert (lake.catalog, lake.folder) == ({"database": "shop"}, "s3://bucket/lake/shop/")


def test_two_lakes_and_two_snapshots_are_different_databases():
    several = [
        lake_of("lake", "shop", given()),
        lake_of("lake", "depot", given()),
        lake_of("lake", "shop", given(snapshot=3)),
        lake_of("lake", "shop", given(catalog=SERVER.replace("5433", "5434"))),
    ]
    assert len({lake.path for lake in several}) == 4
    assert lake_of("other", "shop", given()).path == several[0].path


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("shop", {"ducklake": True}, r"Write \{'catalog': 'default', 'data_path'"),
        ("shop", {"ducklake": {"catalog": SERVER}}, r"Write \{'catalog': 'default', 'data_path'"),
        ("shop", given(path="x"), r"has no option 'path'. The options are: catalog, data_path"),
        ("shop", given(catalog="nowhere"), r"\['catalog'\] is no PostgreSQL database"),
        ("shop", given(catalog="mysql://h/d"), r"\['catalog'\] is no PostgreSQL database"),
        ("shop", given(catalog="postgresql://h:99999/d"), r"has no such port"),
        ("shop", given(catalog=f"{SERVER}' x"), r"has no sslmode such as \"require' x\""),
        ("shop", given(snapshot="3"), r"\['snapshot'\] is '3'. Write the number of a snapshot"),
        ("shop", given(snapshot=-1), r"\['snapshot'\] is -1. Write the number of a snapshot"),
        ('sh"op', given(), r"A lake's name is a schema of its catalogue"),
        ("shop.duckdb", given(), r"A lake's name is a schema of its catalogue"),
        ("s" * 49, given(), r"A lake's name is a schema of its catalogue"),
    ],
)
def test_settings_that_mean_no_lake_are_refused(name, options, told):
    with pytest.raises(ImproperlyConfigured, match=told):
        lake_of("lake", name, options)


@override_settings(LEVADA={"REPLICATE": {"lake": ["shop.Tag"]}})
def test_a_lake_is_no_replica():
    with (
        alias_with(given(), name="shop", alias="lake") as connection,
        pytest.raises(ImproperlyConfigured, match=r"names lake, which is a DuckLake"),
    ):
        connection.get_connection_params()


def test_a_database_without_the_option_is_no_lake():
    assert lake_of("lake", "shop", {}) is None


@isolate_apps("tests.shop")
def test_a_unique_field_is_warned_of_where_the_lake_is_checked():
    class Badge(models.Model):
        code = models.CharField(max_length=9, unique=True)
        text = models.TextField()

        class Meta:
            app_label = "shop"

        def __str__(self):
            return self.code

    with alias_with(given(), name="shop", alias="lake"):
        assert [found.id for found in Badge.check(databases=["lake"])] == ["levada.W020"]
        assert Badge.check(databases=[]) == []


def test_a_model_that_wants_fields_unique_together_is_warned_of():
    with alias_with(given(), name="shop", alias="lake") as connection:
        warned = {each.obj._meta.label for each in connection.validation.check()}
        assert {each.id for each in connection.validation.check()} == {"levada.W020"}
    assert {"auth.Permission", "contenttypes.ContentType"} <= warned
    assert "shop.Tag" not in warned


def test_tables_of_a_lake_are_not_changed_inside_of_a_transaction():
    with alias_with(given(), name="shop") as connection:
        connection.in_atomic_block = True
        with pytest.raises(NotSupportedError, match=r"put atomic = False into the migration"):
            connection.schema_editor().__enter__()
        connection.in_atomic_block = False


def test_a_lake_has_no_savepoints(django_db_blocker):
    with django_db_blocker.unblock():
        with alias_with(given(), name="shop") as connection:
            assert connection.savepoint_bytes == 0
            assert connection.features.uses_savepoints is False
        with (
            alias_with({**given(), "savepoint_bytes": 5}, name="shop") as connection,
            pytest.raises(ImproperlyConfigured, match="no savepoints"),
        ):
            connection.savepoint_bytes  # noqa: B018
