"""
Which services this machine has for the tests, and what happens without one.

A test that needs a service it cannot have is skipped with a reason. Under
LEVADA_REQUIRE_SERVICES=1, as in CI, it fails instead, so that a missing
service can never look like a passing test.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def required() -> bool:
    """Say whether a missing service is a failure."""
    return os.environ.get("LEVADA_REQUIRE_SERVICES", "") not in ("", "0")


def missing(reason: str) -> None:
    """Skip the running test for `reason`, or fail it where services are required."""
    if required():
        pytest.fail(f"LEVADA_REQUIRE_SERVICES is set, but {reason}", pytrace=False)
    pytest.skip(reason)


def chromium() -> str | None:
    """Return the path of the machine's Chromium, None without one."""
    named = os.environ.get("LEVADA_CHROMIUM")
    return named or next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


def browser_missing() -> str | None:
    """Return why a browser test cannot run here, None if it can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    if chromium() is None:
        return "no Chromium was found: apt-get install chromium, or name it in LEVADA_CHROMIUM"
    return None
