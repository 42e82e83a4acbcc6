"""The demo as a process of its own, and pages of a real Chromium that look at it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.demo import Demo, start_demo

SCREENSHOTS = os.environ.get("LEVADA_SCREENSHOTS") == "1"
ROWS = 1_000_000 if SCREENSHOTS else 3_000
"""The picture in the README shows the default demo; the tests need no more than a few rows."""

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = start_demo(tmp_path_factory.mktemp("demo"), ROWS)
    yield running
    running.kill()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, demo: Demo) -> Iterator[Any]:
    """Open the channel with the given browser options; a script error fails the test."""
    complaints: list[str] = []
    with contextlib.ExitStack() as stack:

        def open_page(**options: Any) -> Any:
            context = browser.new_context(**{"reduced_motion": "reduce", **options})
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(30_000)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complain(complaints, said))
            page.goto(demo.url)
            return page

        yield open_page
    assert complaints == []


def complain(complaints: list[str], said: Any) -> None:
    # Chromium also logs every answer of status 4xx, which some tests ask for.
    if said.type == "error" and "Failed to load resource" not in said.text:
        complaints.append(said.text)
