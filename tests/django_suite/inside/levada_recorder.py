"""
A test runner that writes what happens as JSON lines into the file LEVADA_SUITE_RECORD.

Events: `start` and `outcome` of a test, `done` at the end. A process that
dies or hangs leaves a `start` without an outcome, and no `done`.
"""

from __future__ import annotations

import json
import os
import re
import traceback
import unittest
from typing import Any, TextIO

from django.db import connections
from django.test.runner import DiscoverRunner
from django.utils.module_loading import import_string

_HOLDER = re.compile(r"\((?P<name>[\w.]+)\)$")


def name_of(test: Any) -> str:
    """Return a test's dotted name; of a failed setUpClass or import the class or module."""
    test = getattr(test, "test_case", test)  # a subtest stands for its test
    name = test.id()
    holder = _HOLDER.search(name)
    if holder:
        return holder["name"]
    return name.removeprefix("unittest.loader._FailedTest.")


class Result(unittest.TextTestResult):
    """A result that also records each event."""

    record: TextIO

    def _write(self, test: Any, event: str, **fields: Any) -> None:
        self.record.write(json.dumps({"event": event, "test": name_of(test), **fields}) + "\n")
        self.record.flush()

    def _failed(self, test: Any, err: Any) -> None:
        text = str(err) if isinstance(err, str) else "".join(traceback.format_exception(*err))
        self._write(test, "outcome", outcome="failed", reason=text)

    def startTest(self, test: Any) -> None:
        self._write(test, "start")
        super().startTest(test)

    def addSuccess(self, test: Any) -> None:
        self._write(test, "outcome", outcome="passed")
        super().addSuccess(test)

    def addError(self, test: Any, err: Any) -> None:
        self._failed(test, err)
        super().addError(test, err)

    def addFailure(self, test: Any, err: Any) -> None:
        self._failed(test, err)
        super().addFailure(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._failed(test, err)
        super().addSubTest(test, subtest, err)

    def addSkip(self, test: Any, reason: str) -> None:
        self._write(test, "outcome", outcome="skipped", reason=str(reason))
        super().addSkip(test, reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self._write(test, "outcome", outcome="expected")
        super().addExpectedFailure(test, err)

    def addUnexpectedSuccess(self, test: Any) -> None:
        reason = "Passed, though features.py expects it to fail."
        self._write(test, "outcome", outcome="failed", reason=reason)
        super().addUnexpectedSuccess(test)


def stale_marks(installed: set[str]) -> list[str]:
    """Return the tests that features.py skips or expects to fail and that do not exist."""
    features = connections["default"].features
    marked = set(features.django_test_expected_failures)
    marked.update(name for names in features.django_test_skips.values() for name in names)
    return sorted(name for name in marked if name.split(".")[0] in installed and not _exists(name))


def _exists(name: str) -> bool:
    case, _, method = name.rpartition(".")
    try:
        return hasattr(import_string(case), method)
    except ImportError:
        return False


TIMED = "Compares wall-clock times of the XML parser: other load fails it."
ROOT = "Expects to be refused a file, which root is not."
SKIPS_OF_ANY_DATABASE = {
    "serializers.test_deserialization.TestDeserializer.test_crafted_xml_performance": TIMED,
    "admin_scripts.tests.StartApp.test_custom_app_directory_creation_error_handling": ROOT,
    "file_uploads.tests.DirectoryCreationTests.test_readonly_root": ROOT,
    "i18n.test_compilation.PoFileTests.test_no_write_access": ROOT,
    "mail.test_backends.FileBackendPathLibTests.test_error_if_file_path_is_not_writable": ROOT,
    "mail.test_backends.FileBackendTests.test_error_if_file_path_is_not_writable": ROOT,
    "template_tests.test_loaders.FileSystemLoaderTests.test_permissions_error": ROOT,
}
"""The tests that fail on SQLite as well where they run like here, each with the reason."""


def skip(installed: set[str]) -> None:
    """Mark the tests of SKIPS_OF_ANY_DATABASE; another release may not have them."""
    for name, reason in SKIPS_OF_ANY_DATABASE.items():
        if reason is ROOT and os.geteuid() != 0:
            continue
        if name.split(".")[0] in installed and _exists(name):
            case, _, method = name.rpartition(".")
            test_case = import_string(case)
            setattr(test_case, method, unittest.skip(reason)(getattr(test_case, method)))


class RecordingRunner(DiscoverRunner):
    """Django's runner with a recording result; the process's first run alone is recorded."""

    def get_resultclass(self) -> Any:
        path = os.environ.pop("LEVADA_SUITE_RECORD", None)
        if path is None:
            return super().get_resultclass()
        record = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open until the process ends
        return type("Recording", (Result,), {"record": record})

    def setup_databases(self, **kwargs: Any) -> Any:
        from django.conf import settings

        installed = set(settings.INSTALLED_APPS)
        if stale := stale_marks(installed):
            raise LookupError(f"features.py marks tests that do not exist: {', '.join(stale)}")
        skip(installed)
        if "default" not in (kwargs.get("aliases") or ()):  # else Django does it
            connections["default"].creation.mark_expected_failures_and_skips()
        return super().setup_databases(**kwargs)

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        result = super().run_suite(suite, **kwargs)
        if isinstance(result, Result):
            result.record.write(json.dumps({"event": "done"}) + "\n")
            result.record.close()
        return result
