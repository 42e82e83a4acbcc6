"""SQL reaches the database's own file and what the settings name, nothing else."""

import duckdb
import pyarrow
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import Error

from levada.errors import MissingExtension
from tests.integration.duckdb_alias import alias_with
from tests.integration.duckdb_child import Child, ChildError


@pytest.fixture(autouse=True)
def _with_databases(django_db_blocker):
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def secret(tmp_path):
    """A file outside of everything the settings name."""
    path = tmp_path / "secret.csv"
    path.write_text("a\n42\n")
    return path


@pytest.fixture
def lake(tmp_path):
    path = tmp_path / "lake"
    path.mkdir()
    return path


def rows(connection, sql, params=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall()


def refused(connection, sql):
    with pytest.raises(Error) as raised:
        rows(connection, sql)
    return str(raised.value)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{}'",
        "SELECT * FROM read_csv('{}')",
        "SELECT * FROM read_text('{}')",
        "SELECT * FROM glob('{}')",
        "COPY (SELECT 1) TO '{}.out'",
        "CREATE TABLE t AS FROM '{}'",
        "ATTACH '{}.duckdb' AS other",
        "EXPORT DATABASE '{}.folder'",
        "LOAD '{}.duckdb_extension'",
        "INSTALL httpfs FROM '{}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM 'https://127.0.0.1:1/{}.parquet'",
        "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
    ],
)
@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
def test_by_default_no_statement_reaches_outside(sql, in_file, secret, tmp_path):
    before = sorted(tmp_path.iterdir())
    with alias_with(name=tmp_path / "store.duckdb" if in_file else None) as duck:
        assert "disabled" in refused(duck, sql.format(secret))
        assert rows(duck, "SELECT 1") == [(1,)]
        written = {each.name for each in tmp_path.iterdir() if each not in before}
    assert not {each for each in written if not each.startswith("store.duckdb")}


def test_external_opens_a_folder_with_all_below_and_nothing_beside(lake, secret):
    (lake / "year").mkdir()
    with alias_with({"external": [lake]}) as duck:
        rows(duck, f"COPY (SELECT 7 AS a) TO '{lake}/year/x.parquet'")
        assert rows(duck, f"SELECT a FROM '{lake}/**/*.parquet'") == [(7,)]
        for sneaky in (secret, f"{lake}/../secret.csv", f"{lake}/year/../../secret.csv"):
            assert "disabled" in refused(duck, f"SELECT * FROM '{sneaky}'")
        (lake / "link.csv").symlink_to(secret)
        assert "disabled" in refused(duck, f"SELECT * FROM '{lake}/link.csv'")
        assert "disabled" in refused(duck, f"SELECT * FROM '{lake}-other/x.parquet'")


def test_external_opens_one_file(secret, tmp_path):
    (tmp_path / "other.csv").write_text("a\n1\n")
    with alias_with({"external": [str(secret)]}) as duck:
        assert rows(duck, f"SELECT * FROM '{secret}'") == [(42,)]
        assert "disabled" in refused(duck, f"SELECT * FROM '{tmp_path}/other.csv'")


def test_external_takes_relative_folders_and_addresses(lake, monkeypatch):
    monkeypatch.chdir(lake.parent)
    with alias_with({"external": ["lake", "s3://bucket/"]}) as duck:
        rows(duck, f"COPY (SELECT 7 AS a) TO '{lake}/x.parquet'")
        # Permitted, so it gets as far as asking for the extension that could fetch it.
        assert "httpfs" in refused(duck, "SELECT * FROM 's3://bucket/x.parquet'")
        assert "disabled" in refused(duck, "SELECT * FROM 's3://bucket-two/x.parquet'")


def test_external_true_opens_everything(secret):
    with alias_with({"external": True}) as duck:
        assert rows(duck, f"SELECT * FROM '{secret}'") == [(42,)]
        assert rows(duck, "SELECT current_setting('autoinstall_known_extensions')") == [(False,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SET enable_external_access = true",
        "SET GLOBAL allowed_directories = ['/']",
        "SET allow_unsigned_extensions = true",
        "SET autoinstall_known_extensions = true",
        "SET lock_configuration = false",
        "SET GLOBAL memory_limit = '1TB'",
        "PRAGMA memory_limit = '1TB'",
        "RESET threads",
    ],
)
@pytest.mark.parametrize("external", [False, True])
def test_no_statement_changes_a_setting(sql, external):
    with alias_with({"external": external}) as duck:
        refused(duck, sql)


def test_the_project_may_leave_settings_unlocked_or_name_those_that_stay_open():
    with alias_with({"config": {"lock_configuration": False}}) as duck:
        rows(duck, "SET GLOBAL threads = 1")
        assert rows(duck, "SELECT current_setting('threads')") == [(1,)]
    with alias_with({"config": {"allowed_configs": ["threads"]}}) as duck:
        rows(duck, "SET GLOBAL threads = 1")
        refused(duck, "SET GLOBAL memory_limit = '1GB'")


def test_memory_and_threads_are_limited_by_the_settings():
    with alias_with({"config": {"memory_limit": "60MB", "threads": 2}}) as duck:
        limits = "SELECT current_setting('memory_limit'), current_setting('threads')"
        assert rows(duck, limits) == [("57.2 MiB", 2)]


def test_arrow_goes_in_and_out_without_external_access():
    with alias_with() as duck:
        duck.ensure_connection()
        incoming = pyarrow.table({"a": [1, 2]})
        duck.connection.execute("CREATE TABLE t AS FROM given", arrow={"given": incoming})
        assert duck.connection.fetch_arrow("FROM t").equals(incoming)
        # Nor are Python's variables in reach.
        assert "does not exist" in refused(duck, "SELECT * FROM incoming")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"external": "/data"}, r"\['external'\] is '/data'. Write a list of folders"),
        ({"external": [""]}, r"holds '', which is no path"),
        ({"external": [7]}, r"holds 7, which is no path"),
        ({"config": {"enable_external_access": True}}, r"into OPTIONS\['external'\] instead"),
        ({"config": {"Allowed_Directories": ["/"]}}, r"into OPTIONS\['external'\] instead"),
        ({"externals": []}, r"has no option 'externals'. The options are: config, ducklake, ext"),
        ({"extensions": "httpfs"}, r"\['extensions'\] is 'httpfs'. Write a list of names"),
        ({"extensions": [7]}, r"\['extensions'\] is \[7\]. Write a list of names"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with alias_with(options) as duck, pytest.raises(ImproperlyConfigured, match=message):
        duck.ensure_connection()


def test_an_extension_that_is_part_of_duckdb_is_loaded_by_name():
    with alias_with({"extensions": ["json", "icu"]}) as duck:
        assert rows(duck, "SELECT json_valid('{}')") == [(True,)]


def test_an_extension_that_is_nowhere_is_named_with_the_package_to_install():
    package = rf"pip install duckdb-extension-no-where=={duckdb.__version__}"
    with (
        alias_with({"extensions": ["no_where"]}) as duck,
        pytest.raises(MissingExtension, match=package),
    ):
        rows(duck, "SELECT 1")


@pytest.mark.parametrize("content", [None, b"no library"])
def test_an_extension_file_that_cannot_be_loaded_is_named(content, tmp_path):
    path = tmp_path / "wonder.duckdb_extension"
    if content:
        path.write_bytes(content)
    told = r"wonder\.duckdb_extension: .* See that the file is there and of this version"
    with (
        alias_with({"extensions": [path]}) as duck,
        pytest.raises(MissingExtension, match=f"(?s){told}"),
    ):
        rows(duck, "SELECT 1")


def test_an_extension_is_found_in_its_package_if_that_is_for_this_duckdb(tmp_path, monkeypatch):
    package = tmp_path / "duckdb_extension_wonder"
    monkeypatch.syspath_prepend(tmp_path)
    for version in ("v0.0.1", f"v{duckdb.__version__}"):
        (package / "extensions" / version).mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "extensions" / version / "wonder.duckdb_extension").write_bytes(b"no library")
        # The file in the package is found, which DuckDB then refuses.
        told = "not on this machine" if version == "v0.0.1" else r"(?i)metadata|too small|invalid"
        with (
            alias_with({"extensions": ["wonder"]}) as duck,
            pytest.raises(MissingExtension, match=told),
        ):
            rows(duck, "SELECT 1")


def test_a_client_of_another_process_reaches_no_more_than_the_owner(secret, tmp_path):
    """The owner's settings count, whatever a client's say."""
    path = tmp_path / "store.duckdb"
    owner = Child(path)
    try:
        owner("run", "SELECT 1")
        with alias_with({"external": True}, name=path) as duck:
            assert "disabled" in refused(duck, f"SELECT * FROM '{secret}'")
        with pytest.raises(ChildError, match="disabled"):
            owner("run", f"SELECT * FROM '{secret}'")
    finally:
        owner.end()
