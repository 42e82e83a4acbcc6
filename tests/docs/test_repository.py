"""The repository itself: nothing of one machine in it, everything pinned, its files agree."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent

REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("crates", "io"),
        ("golang", "org"),
        ("maven", "org"),
        ("deb", "debian", "org"),
    )
]
BADGE = re.compile("|".join(("shields" + r"\.io", "badge" + r"\.(svg|fury)", "badgen" + r"\.net")))
MACHINE_PATH = re.compile(r"(?<![\w.$}/])/(?:root|home|Users|work)/\w")


def committed_files() -> list[Path]:
    """Return what git has or would take, as paths from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def text_files() -> dict[str, str]:
    """Return every committed text file's content by its path."""
    texts = {}
    for path in committed_files():
        raw = (ROOT / path).read_bytes()
        if b"\0" not in raw:
            texts[path.as_posix()] = raw.decode("utf-8")
    return texts


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in text_files().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_file_names_a_registry_host():
    assert lines_with(re.compile("|".join(map(re.escape, REGISTRY_HOSTS)))) == []


def test_no_file_shows_a_badge():
    assert lines_with(BADGE) == []


def test_no_file_has_a_path_of_one_machine():
    assert lines_with(MACHINE_PATH) == []


@pytest.mark.parametrize("folder", ["root", "home", "Users", "work"])
def test_a_path_of_one_machine_would_be_found(folder):
    assert MACHINE_PATH.search(f"see '/{folder}/levada' now")


def test_no_lock_file_of_another_tool_is_committed():
    names = {path.name for path in committed_files()}
    assert names.isdisjoint({"uv.lock", "poetry.lock", "Pipfile.lock"})


def every_requirement() -> list[Requirement]:
    """Return what pyproject.toml asks for, its references to its own extras left out."""
    project = pyproject()["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
        *(line for group in pyproject()["dependency-groups"].values() for line in group),
        *pyproject()["build-system"]["requires"],
    ]
    found = [Requirement(line) for line in lines]
    return [each for each in found if each.name != project["name"]]


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_constraints_pin_every_requirement():
    pinned = {canonicalize_name(pin.name) for pin in pins()}
    asked = {canonicalize_name(each.name) for each in every_requirement()}
    assert asked - pinned == set(), "run: make pin"


def test_constraints_are_versions_that_the_requirements_allow():
    asked = {canonicalize_name(each.name): each for each in every_requirement()}
    for pin in pins():
        assert pin.url is None
        (clause,) = pin.specifier
        assert clause.operator == "=="
        if (requirement := asked.get(canonicalize_name(pin.name))) is not None:
            assert requirement.specifier.contains(clause.version), f"{pin} breaks {requirement}"


def test_every_requirement_says_why_it_is_there():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(r'^ +"([A-Za-z][^"]*[<>]=[^"]*)",(.*)$', text, flags=re.MULTILINE)
    assert len(listed) > 10
    assert [name for name, rest in listed if not rest.strip().startswith("#")] == []


def test_make_lists_every_target_it_has():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    assert phony is not None
    explained = re.findall(r"^([a-z-]+):.*## ", text, flags=re.MULTILINE)
    assert sorted(phony[1].split()) == sorted(explained)


@pytest.mark.parametrize("script", ["scripts/find-python"])
def test_scripts_that_make_calls_by_name_are_executable(script):
    assert (ROOT / script).stat().st_mode & 0o111
