"""The scripts behind `make`: pins, environments, throw-away servers, one vendor a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "scripts"


@pytest.fixture
def scripts(monkeypatch):
    """Let the test import the modules of scripts/."""
    monkeypatch.syspath_prepend(SCRIPTS)


def test_equal_versions_of_neighbouring_pythons_share_a_line(scripts):
    import pin

    merged = pin.merge(
        {
            "3.11": {"Django": "5.2.1", "click": "8.0", "tomli": "2.0"},
            "3.12": {"Django": "6.1.0", "click": "8.0"},
            "3.13": {"Django": "6.1.0", "click": "8.0"},
        }
    )
    assert merged == [
        "click==8.0",
        'Django==5.2.1 ; python_version < "3.12"',
        'Django==6.1.0 ; python_version >= "3.12"',
        'tomli==2.0 ; python_version < "3.12"',
    ]


def test_a_chosen_django_replaces_the_pinned_one(scripts):
    import make_venv

    lines = make_venv.constraints("6.0")
    assert [line for line in lines if line.lower().startswith("django=")] == []
    assert lines[-1] == "Django~=6.0.0"
    assert set(make_venv.constraints(None)) > set(lines[:-1])


def test_find_python_prints_one_that_is_new_enough():
    found = subprocess.run(
        [SCRIPTS / "find-python"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()).resolve() == Path(sys.executable).resolve()


def test_find_python_names_what_to_do_without_one():
    found = subprocess.run(
        [SCRIPTS / "find-python"],
        env={**os.environ, "PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert found.stdout == ""
    assert "make demo PYTHON=" in found.stderr


def test_a_command_gets_a_server_of_its_own_and_its_exit_status_comes_back(scripts):
    import with_postgres

    from tests import services

    if with_postgres.find_bin() is None:
        services.missing("no PostgreSQL is installed (apt-get install postgresql)")
    code = """
import os, sys, psycopg
with psycopg.connect(os.environ["LEVADA_TEST_SOURCE"]) as connection:
    print(connection.execute("SELECT current_database()").fetchone()[0])
sys.exit(7)
"""
    environment = {key: os.environ[key] for key in os.environ if key != "LEVADA_TEST_SOURCE"}
    done = subprocess.run(
        [sys.executable, SCRIPTS / "with_postgres.py", sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "levada\n"), done.stderr


def test_a_named_source_is_used_as_it_is(scripts, monkeypatch, capfd):
    import with_postgres

    monkeypatch.setenv("LEVADA_TEST_SOURCE", "postgresql://somewhere/else")
    show = "import os; print(os.environ['LEVADA_TEST_SOURCE'])"
    assert with_postgres.main([sys.executable, "-c", show]) == 0
    assert capfd.readouterr().out == "postgresql://somewhere/else\n"


@pytest.mark.parametrize(("required", "status"), [(None, 0), ("1", 1)])
def test_without_postgresql_the_other_half_is_missed_aloud(
    scripts, monkeypatch, tmp_path, capfd, required, status
):
    import run_tests

    monkeypatch.delenv("LEVADA_REQUIRE_SERVICES", raising=False)
    if required:
        monkeypatch.setenv("LEVADA_REQUIRE_SERVICES", required)
    monkeypatch.setattr(run_tests, "WITH_POSTGRES", tmp_path / "not_installed.py")
    run_tests.WITH_POSTGRES.write_text("raise SystemExit(77)")
    assert run_tests.main(["--version"]) == status
    assert "NOT TESTED: a PostgreSQL source" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("sqlite", "postgresql", "status"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (5, 0, 5), (0, 5, 0)]
)
def test_a_half_that_fails_fails_both(
    scripts, monkeypatch, tmp_path, capfd, sqlite, postgresql, status
):
    import run_tests

    stand_in = tmp_path / "with_postgres.py"
    stand_in.write_text(f"print('the other half'); raise SystemExit({postgresql})")
    monkeypatch.setattr(run_tests, "WITH_POSTGRES", stand_in)
    (tmp_path / "pytest.py").write_text(f"raise SystemExit({sqlite})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_tests.main([]) == status
    assert "the other half" in capfd.readouterr().out


def test_a_missing_service_skips_and_fails_where_it_is_required(monkeypatch):
    from tests import services

    monkeypatch.delenv("LEVADA_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        services.missing("no browser")
    monkeypatch.setenv("LEVADA_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match="no browser"):
        services.missing("no browser")


@pytest.mark.sqlite
def test_sqlite_tests_run_with_an_sqlite_source():
    from django.db import connection

    assert connection.vendor == "sqlite"


@pytest.mark.postgresql
def test_postgresql_tests_run_with_a_postgresql_source():
    from django.db import connection

    assert connection.vendor == "postgresql"


def test_every_profile_has_its_groups_and_a_stamp(scripts):
    import make_venv

    groups = make_venv.pyproject()["dependency-groups"]
    assert make_venv.EXTRAS.keys() == make_venv.GROUPS.keys() == make_venv.STAMPS.keys()
    assert set(groups) == {group for names in make_venv.GROUPS.values() for group in names}
    assert make_venv.group_requirements("dev", "django-suite") == [
        *groups["dev"],
        *groups["django-suite"],
    ]
