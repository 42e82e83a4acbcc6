"""The public names, and what importing them costs."""

import os
import subprocess
import sys

import pytest

import levada

BARE = """
import sys
before = set(sys.modules)
import levada
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
FULL = """
import django
django.setup()
import levada, sys
for name in levada.__all__:
    getattr(levada, name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def packages_imported_by(code):
    """Run `code` in a fresh interpreter and return the top-level packages it prints."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_levada_imports_nothing_else():
    assert packages_imported_by(BARE) - set(sys.stdlib_module_names) == {"levada"}


def test_the_public_names_need_django_alone():
    engines = {"duckdb", "pyarrow", "confluent_kafka", "boto3", "ninja", "fastapi", "strawberry"}
    packages = packages_imported_by(FULL)
    assert "django" in packages
    assert not packages & engines


def test_all_names_what_is_public_and_nothing_else():
    assert levada.__all__ == sorted(levada.__all__)
    assert set(levada.__all__) == {
        "Change",
        "Position",
        "SourcePosition",
        "__version__",
        "aposition",
        "await_for",
        "position",
        "publish",
        "replica",
        "subscribe",
        "wait_for",
    }
    for name in levada.__all__:
        assert getattr(levada, name) is not None
        assert name in dir(levada)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = levada.nothing_of_the_kind
