"""Django's source release: the tests are in it, not in the installed package."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".django-suite"

OUT = {"gis_tests": "needs a spatial database backend"}
"""Test apps that are left out, and why."""

_NO_APPS = frozenset(("import_error_package", "test_runner_apps"))
"""Folders beside the test apps, which `runtests.py` leaves out as well."""


def installed() -> str:
    """Return the version of the Django that is installed."""
    return version("django")


def find(release: str, folder: Path | None, cache: Path = CACHE) -> Path:
    """
    Return the folder of the source of Django `release`, fetched by pip where it is not there.

    folder: where it lies already. Raises SystemExit if that is another release.
    """
    if folder is not None:
        check(folder, release)
        return folder.resolve()
    unpacked = cache / f"django-{release}"
    if not (unpacked / "tests" / "runtests.py").exists():
        unpack(download(release, cache), cache)
    check(unpacked, release)
    return unpacked


def download(release: str, cache: Path) -> Path:
    """Fetch the source release by pip into `cache`; returns the archive."""
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / f"django-{release}.tar.gz"
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command = [*pip, "--no-binary", ":all:", "--dest", str(cache), f"django=={release}"]
        subprocess.run(command, check=True)
    return archive


def unpack(archive: Path, cache: Path) -> None:
    """Unpack `archive` into a folder of its own name below `cache`."""
    with tarfile.open(archive) as opened:
        opened.extractall(cache, filter="data")


def check(folder: Path, release: str) -> None:
    """Raise SystemExit unless `folder` is the source of Django `release`, with its tests."""
    info = folder / "PKG-INFO"
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    if f"Version: {release}" not in lines or not (folder / "tests" / "runtests.py").exists():
        sys.exit(
            f"{folder} is not the source release of the installed Django {release}. "
            f"Leave --source out to let pip download it."
        )


def test_apps(folder: Path) -> list[str]:
    """Return the names of the release's test apps, those that are left out included."""
    return sorted(
        entry.name
        for entry in (folder / "tests").iterdir()
        if (entry / "__init__.py").exists() and entry.name not in _NO_APPS
    )


def defines(folder: Path, test: str) -> bool:
    """
    Say whether the release has `test` ("queries.tests.Queries1Tests.test_ticket1050").

    Its class must be named in its module, and its method be written in some
    module of the app: it may be inherited from a class of another.
    """
    module, case, method = test.rsplit(".", 2)
    path = folder / "tests" / module.replace(".", "/")
    texts = [each for each in (path.with_suffix(".py"), path / "__init__.py") if each.exists()]
    app = folder / "tests" / module.split(".")[0]
    return any(_names(each, rf"class {case}\b") for each in texts) and any(
        _names(each, rf"def {method}\(") for each in app.rglob("*.py")
    )


def _names(path: Path, pattern: str) -> bool:
    return re.search(pattern, path.read_text(encoding="utf-8")) is not None
