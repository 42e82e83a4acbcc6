"""
Run Django's own test suite on the DuckDB backend.

    python -m tests.django_suite                     all apps of the installed Django
    python -m tests.django_suite queries lookup      some, or single tests by their dotted name
    python -m tests.django_suite --subset            a broad choice that takes minutes

Exit status: 0 when all is well; 1 if a test failed that `features.py` does not
name under its cause, or was skipped for a reason `causes.py` does not know.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from . import running, source

# A checkout without an installed Levada takes its own source, as the tests will.
sys.path.insert(0, str(running.SRC))

from . import report
from .results import AppResult

SUBSET = (
    "aggregation", "aggregation_regress", "annotations", "async", "backends", "basic",
    "bulk_create", "composite_pk", "constraints", "contenttypes_tests", "custom_lookups",
    "custom_pk", "datatypes", "dates", "datetimes", "db_functions", "db_utils", "defer", "delete",
    "distinct_on_fields", "expressions", "expressions_case", "expressions_window",
    "extra_regress", "field_defaults", "filtered_relation", "fixtures", "force_insert_update",
    "foreign_object", "from_db_value", "generic_relations", "get_or_create", "indexes",
    "inspectdb", "introspection", "lookup", "m2m_through", "many_to_many", "many_to_one",
    "migrations", "model_fields", "model_inheritance", "multiple_database", "null_queries",
    "one_to_one", "ordering", "prefetch_related", "queries", "raw_query", "schema",
    "select_for_update", "select_related", "serializers", "timezones", "transactions", "update",
    "validation",
)  # fmt: skip
"""The apps CI runs on every change: each kind of statement the ORM writes."""


def main(arguments: Sequence[str]) -> int:
    """Run the apps, print and write what came out; returns the exit status."""
    options = parse(arguments)
    django = source.installed()
    folder = source.find(django, options.source)
    options.logs.mkdir(parents=True, exist_ok=True)
    labels = choose(options, source.test_apps(folder))
    plan = running.Plan(folder, options.logs, options.limit, options.jobs, options.processes)
    results: list[AppResult] = []
    for result in running.run_apps(plan, labels):
        print(report.line(result), flush=True)
        results.append(result)
    results.sort(key=lambda each: each.app)
    versions = {
        "Django": django,
        "DuckDB": version("duckdb"),
        "Python": platform.python_version(),
    }
    out = {} if options.apps or options.subset else source.OUT
    if options.json is not None:
        options.json.write_text(report.as_json(results, versions, out), encoding="utf-8")
    if options.markdown is not None:
        page = options.markdown.read_text(encoding="utf-8") if options.markdown.exists() else ""
        section = report.as_markdown(results, versions, out)
        options.markdown.write_text(report.put_into(page, section), encoding="utf-8")
    print(report.summary(results, versions))
    failed = any(each.count("failed") for each in results)
    return 1 if failed or report.unexplained(results) else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.django_suite", description="Run Django's tests on DuckDB."
    )
    parser.add_argument("apps", nargs="*", metavar="APP", help="test apps or dotted test names")
    parser.add_argument("--subset", action="store_true", help="run CI's choice of apps")
    parser.add_argument("--source", type=Path, metavar="FOLDER", help="Django's unpacked release")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome as JSON")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables into this page"
    )
    parser.add_argument("--logs", type=Path, metavar="FOLDER", default=source.CACHE / "logs",
                        help="where the output of each app goes")  # fmt: skip
    parser.add_argument("--limit", type=float, metavar="SECONDS", default=900.0,
                        help="how long one app may take (900)")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1,
                        help="how many apps run at once (one a core)")  # fmt: skip
    parser.add_argument("--processes", type=int, default=1,
                        help="how many processes one app's tests run in (1)")  # fmt: skip
    return parser.parse_args(arguments)


def choose(options: argparse.Namespace, there: Sequence[str]) -> dict[str, list[str]]:
    """Return the labels to run by their app. Raises SystemExit for an app that is not there."""
    wanted = [name.strip("/") for name in options.apps]
    if not wanted:
        wanted = [app for app in (SUBSET if options.subset else there) if app not in source.OUT]
    labels: dict[str, list[str]] = {}
    for label in wanted:
        labels.setdefault(label.split(".")[0], []).append(label)
    missing = sorted(set(labels) - set(there))
    if missing:
        sys.exit(f"Django {source.installed()} has no test app {', '.join(missing)}.")
    for app in labels:
        if app in source.OUT:
            sys.exit(f"{app} is left out: {source.OUT[app]}.")
    return labels


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
