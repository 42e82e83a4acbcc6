"""
The whole suite's rules: one source vendor a run, and loud notices for what did not run.

A test marked `sqlite` or `postgresql` runs only with a source of that vendor
(LEVADA_TEST_SOURCE chooses it); in the other run it is deselected and counted
in the closing summary. A test marked `browser` needs a Chromium.
"""

from __future__ import annotations

import pytest

# The suite runs without the package being installed, so no entry point names the plugin.
from levada.testing.plugin import levada_assert_replicated, levada_drain  # noqa: F401

from . import services
from .settings import SOURCE_URL

VENDORS = ("sqlite", "postgresql")
VENDOR = "postgresql" if SOURCE_URL else "sqlite"

SOURCELESS = (
    "tests/docs/",
    "tests/integration/test_duckdb_",
    "tests/integration/test_ducklake",
    "tests/unit/test_duckdb_",
)
"""Tests that no source has a part in: they run once, with SQLite."""

deselected_for_vendor = pytest.StashKey[int]()


def pytest_report_header() -> str:
    wanted = "required" if services.required() else "skipped where missing"
    return f"source: {VENDOR}, services: {wanted}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is for the other vendor alone."""
    kept, others = [], []
    for item in items:
        marked = {vendor for vendor in VENDORS if item.get_closest_marker(vendor)}
        if not marked and item.nodeid.startswith(SOURCELESS):
            marked.add("sqlite")
        (others if marked and VENDOR not in marked else kept).append(item)
    config.stash[deselected_for_vendor] = len(others)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = kept


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail where services are required, what this machine has no browser for."""
    if item.get_closest_marker("browser") and (reason := services.browser_missing()):
        services.missing(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud what the closing line's counts would hide."""
    count = terminalreporter.config.stash.get(deselected_for_vendor, 0)
    if count:
        other = next(vendor for vendor in VENDORS if vendor != VENDOR)
        terminalreporter.write_line(
            f"NOT RUN with this source: {count} tests for a {other} source; `make test` runs both."
        )
    if reason := services.browser_missing():
        terminalreporter.write_line(f"NOT RUN: browser tests; {reason}.")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the machine's Chromium, for playwright's `executable_path`."""
    path = services.chromium()
    if path is None:
        services.missing("no Chromium was found")
    assert path is not None
    return path
