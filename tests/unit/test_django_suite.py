"""The runner of Django's own suite: what it counts, and that nothing it marks is made up."""

from __future__ import annotations

import json
import os
import re
import tarfile
from pathlib import Path

import duckdb
import pytest
from django.db import ConnectionHandler

from tests.django_suite import __main__ as command
from tests.django_suite import causes, report, running, source
from tests.django_suite.results import AppResult, read_record

DATABASES = {"default": {"ENGINE": "levada.stores.duckdb", "NAME": ":memory:"}}

RUNTESTS = """
import json, os, sys, time
record = open(os.environ["LEVADA_SUITE_RECORD"], "a")
def write(**event):
    record.write(json.dumps(event) + "\\n"); record.flush()
write(event="start", test="app.tests.T.test_a")
write(event="outcome", test="app.tests.T.test_a", outcome="passed")
write(event="start", test="app.tests.T.test_b")
{}
"""


def events(*each):
    return [json.dumps(event) for event in each]


def outcome(test, what, reason=""):
    return {"event": "outcome", "test": test, "outcome": what, "reason": reason}


def release(folder: Path, version: str = "9.8", end: str = "") -> Path:
    """Make a folder that looks like Django's source release, with one app."""
    root = folder / f"django-{version}"
    (root / "tests" / "app").mkdir(parents=True)
    (root / "tests" / "app" / "__init__.py").touch()
    (root / "tests" / "runtests.py").write_text(RUNTESTS.format(end))
    (root / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nVersion: {version}\n")
    return root


def plan(folder: Path, **extra) -> running.Plan:
    return running.Plan(**{"logs": folder, "limit_s": 60, "jobs": 1, "processes": 1, **extra})


def test_a_test_with_one_failing_subtest_counts_once_as_failed():
    result = read_record(
        "app",
        events(
            outcome("app.T.a", "failed", "first"),
            outcome("app.T.a", "failed", "second"),
            outcome("app.T.a", "passed"),
            outcome("app.T.b", "skipped", "no feature"),
            outcome("app.T.c", "expected"),
            {"event": "done"},
        ),
        None,
    )
    assert report.numbers(result) == (2, 0, 1, 1, 1)
    assert result.of("failed") == {"app.T.a": "first"}


def test_a_process_that_hangs_fails_the_test_under_way(tmp_path):
    folder = release(tmp_path, end="time.sleep(600)")
    result = running.run_app(plan(tmp_path, source=folder, limit_s=2), "app", ["app"])
    assert result.of("passed").keys() == {"app.tests.T.test_a"}
    assert result.of("failed") == {"app.tests.T.test_b": "The process ran out of its 2 s."}
    assert "most recent call first" in (tmp_path / "app.log").read_text()


def test_a_process_that_dies_fails_the_test_under_way(tmp_path):
    folder = release(tmp_path, end="os.kill(os.getpid(), 9)")
    result = running.run_app(plan(tmp_path, source=folder), "app", ["app"])
    assert result.of("failed") == {"app.tests.T.test_b": "The process ended with status -9."}


def test_a_process_that_fails_after_its_tests_fails_the_app(tmp_path):
    end = "write(event='done'); print('no database'); sys.exit(3)"
    result = running.run_app(plan(tmp_path, source=release(tmp_path, end=end)), "app", ["app"])
    ((name, reason),) = result.of("failed").items()
    assert name == "app"
    assert "status 3" in reason
    assert "no database" in reason


def test_the_release_of_another_version_is_refused(tmp_path):
    folder = release(tmp_path)
    assert source.find("9.8", folder) == folder
    with pytest.raises(SystemExit, match=r"not the source release of the installed Django 9\.9"):
        source.find("9.9", folder)


def test_an_archive_in_the_cache_is_unpacked_and_not_fetched_again(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "django-9.8.tar.gz", "w:gz") as archive:
        archive.add(release(tmp_path / "made"), arcname="django-9.8")
    monkeypatch.setattr(source.subprocess, "run", lambda *_, **__: pytest.fail("fetched"))
    assert source.test_apps(source.find("9.8", None, tmp_path)) == ["app"]


def test_the_page_gets_the_causes_and_every_app():
    result = AppResult("queries")
    result.add("queries.a", "passed")
    result.add("queries.b", "skipped", "Database doesn't support feature(s): has_select_for_update")
    result.add("queries.c", "expected")
    section = report.as_markdown([result], {"Django": "9.8.7"}, {"gis_tests": "needs space"})
    assert "| queries | 2 | 1 | 0 | 1 | 1 |" in section
    assert "| DuckDB locks no rows: there is no SELECT … FOR UPDATE. | 1 |" in section
    assert f"| {report.DJANGOS_OWN} | 1 |" in section
    assert "`gis_tests` is left out: it needs space." in section


def test_the_page_keeps_its_text_and_the_sections_of_other_versions():
    page = "# Title\n\nText.\n\n## Django 9.7.1, x\n\nold\n\n## Django 9.8.1, x\n\nold\n"
    page = report.put_into(page, "## Django 9.7.2, x\n\nnew\n")
    page = report.put_into(page, "## Django 9.9.1, x\n\nfirst\n")
    assert page == (
        "# Title\n\nText.\n\n## Django 9.7.2, x\n\nnew\n\n## Django 9.8.1, x\n\nold\n\n"
        "## Django 9.9.1, x\n\nfirst\n"
    )


def test_a_skip_without_a_known_cause_is_unexplained():
    result = AppResult("queries")
    result.add("queries.a", "skipped", "Database doesn't support feature(s): teleportation")
    result.add("queries.b", "skipped", "MySQL specific")
    assert report.unexplained([result]) == {"queries.a": result.reasons["queries.a"]}
    assert "UNEXPLAINED SKIP queries.a" in report.summary([result], {"Django": "9.8"})


def sections_of_the_page() -> dict[str, str]:
    page = (source.ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    return {each.split()[0]: each for each in page.split("\n## Django ")[1:]}


@pytest.mark.parametrize("django", sections_of_the_page())
def test_the_figures_on_the_page_add_up_and_explain_everything(django):
    section = sections_of_the_page()[django]
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", section, re.M)
    assert {app for app, *_ in rows} >= set(command.SUBSET)
    run, passed, failed, expected, skipped = (
        sum(map(int, column)) for column in list(zip(*rows, strict=True))[1:]
    )
    assert (
        f"{run:,} tests ran in {len(rows)} apps: {passed:,} passed, {failed} failed, "
        f"{expected} failed as expected. {skipped:,} were skipped."
    ) in section
    assert failed == 0
    assert report.UNEXPLAINED not in section
    causes_given = re.findall(r"^\| (?!app \|)[^|]+ \| (\d+) \|$", section, re.M)
    assert sum(map(int, causes_given)) == skipped + expected


@pytest.mark.parametrize("missing", causes.MISSING, ids=lambda missing: missing.flags[0])
def test_what_is_missing_is_off_and_still_missing_in_duckdb(missing):
    features = ConnectionHandler(DATABASES)["default"].features
    assert not any(getattr(features, flag, False) for flag in missing.flags)
    if missing.probe:
        assert missing.says in answer_of(missing.probe)


def answer_of(statements: str) -> str:
    """Return the rows of the last of `statements` as text, or the error of any."""
    connection = duckdb.connect()
    try:
        return repr(connection.execute(statements).fetchall())
    except duckdb.Error as error:
        return str(error)
    finally:
        connection.close()


def test_an_app_that_is_not_there_or_left_out_is_refused():
    with pytest.raises(SystemExit, match="no test app nonsense"):
        command.choose(command.parse(["nonsense.tests"]), ["queries"])
    with pytest.raises(SystemExit, match="spatial"):
        command.choose(command.parse(["gis_tests"]), ["gis_tests"])


@pytest.fixture
def django_source():
    """Return the source of the installed Django; skips where it is not at hand."""
    folder = os.environ.get("LEVADA_DJANGO_SOURCE")
    there = source.CACHE / f"django-{source.installed()}"
    if folder is None and not there.exists():
        pytest.skip("Django's source is not here: make django-suite fetches it")
    return source.find(source.installed(), Path(folder) if folder else None)


def test_the_subset_names_apps_of_the_release(django_source):
    assert set(command.SUBSET) <= set(source.test_apps(django_source))


def test_the_marks_in_features_name_tests_of_the_release(django_source):
    features = ConnectionHandler(DATABASES)["default"].features
    marked = set(features.django_test_expected_failures).union(*features.django_test_skips.values())
    assert [name for name in sorted(marked) if not source.defines(django_source, name)] == []


def test_a_mark_that_names_no_test_is_found(django_source):
    assert source.defines(django_source, "queries.tests.Queries1Tests.test_ticket1050")
    assert not source.defines(django_source, "queries.tests.Queries1Tests.test_no_such_test")


def test_a_result_is_recorded_by_the_real_suite(django_source, tmp_path):
    made = plan(tmp_path, source=django_source)
    result = running.run_app(made, "basic", ["basic.tests.ModelTest.test_hash"])
    assert result.outcomes == {"basic.tests.ModelTest.test_hash": "passed"}
