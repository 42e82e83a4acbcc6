"""`python -m levada demo --check` as a process: passes when all is equal, fails when not."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import duckdb
import pytest

from tests.demo import check_demo
from tests.settings import SOURCE_URL


@pytest.fixture
def source(request):
    """The environment that names a fresh source database of the vendor under test."""
    if not SOURCE_URL:
        yield {}
        return
    import psycopg

    name = "levada_test_demo"
    with psycopg.connect(SOURCE_URL, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name}")
        admin.execute(f"CREATE DATABASE {name}")
        yield {"DATABASE_URL": urlunsplit(urlsplit(SOURCE_URL)._replace(path=f"/{name}"))}
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_check_makes_everything_and_proves_it(tmp_path, source):
    done = check_demo(tmp_path / "demo", "--rows", "2000", **source)
    assert done.returncode == 0, done.stderr
    assert "2,000 rows" in done.stdout
    assert "7,022 new of 7,022" in done.stdout
    assert "✓" in line(done, "Writing an event")
    analytics = line(done, "analytics")
    assert "9,023" in analytics  # the event that the check itself wrote is one of them
    assert "0 changes" in analytics
    assert analytics.endswith("verified ✓")


def test_a_second_check_goes_on_with_its_data_and_adds_rows(tmp_path, source):
    check_demo(tmp_path, "--rows", "300", **source)
    again = check_demo(tmp_path, "--rows", "500", **source)
    assert again.returncode == 0, again.stderr
    assert "200 rows" in line(again, "Loading synthetic events")
    assert "0 new of 7,022" in again.stdout
    assert "7,524" in line(again, "analytics")


def test_a_replica_that_differs_fails_the_check(tmp_path, source):
    """Proof that the tick can be missing: one row is taken from the replica behind its back."""
    assert check_demo(tmp_path, "--rows", "300", **source).returncode == 0
    with duckdb.connect(str(tmp_path / "analytics.duckdb")) as replica:
        replica.execute("DELETE FROM calendar_events_economicevent WHERE id = 17")
    done = check_demo(tmp_path, "--rows", "300", **source)
    assert done.returncode == 1
    assert "1 rows differ" in line(done, "analytics")
    assert "NOT VERIFIED" in done.stderr


def test_a_replica_that_is_no_duckdb_file_fails_the_check_in_words(tmp_path, source):
    assert check_demo(tmp_path, "--rows", "300", **source).returncode == 0
    (tmp_path / "analytics.duckdb").write_bytes(b"not a database" * 1000)
    done = check_demo(tmp_path, "--rows", "300", **source)
    assert done.returncode == 1
    assert "analytics.duckdb" in done.stderr
    assert "Traceback" not in done.stderr


def line(done, start):
    """Return the line of the output that begins with `start`."""
    found = [each.strip() for each in done.stdout.splitlines() if each.strip().startswith(start)]
    assert found, f"no line begins with {start!r}:\n{done.stdout}\n{done.stderr}"
    return found[0]
