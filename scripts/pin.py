"""
Write constraints.txt again: the newest versions that install, on every supported Python.

    python scripts/pin.py python3.11 python3.12 python3.13

Each Python named resolves pyproject.toml's dependencies, all extras, the
dependency groups and the build tools for itself, without installing. What
they agree on gets one line; where they differ, each run of equal versions
gets a line with a marker. Name the Pythons from the oldest to the newest. `make pin` runs it.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys

from make_venv import CONSTRAINTS, GROUPS, build_requirements, group_requirements, pyproject

HEADER = """\
# The versions `make` installs, written by scripts/pin.py (make pin), not by hand.
"""


def requirements() -> list[str]:
    """Return every requirement of the project; its references to its own extras left out."""
    project = pyproject()["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    groups = group_requirements(*GROUPS["suite"])
    everything = [*project["dependencies"], *extras, *groups, *build_requirements()]
    own = re.compile(rf"{project['name']}\[")
    return [line for line in everything if not own.match(line)]


def resolve(python: str) -> dict[str, str]:
    """Return name to version of what `python`'s pip would install."""
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    found = subprocess.run(
        [*command, "--report", "-", *requirements()], stdout=subprocess.PIPE, text=True, check=True
    )
    entries = [entry["metadata"] for entry in json.loads(found.stdout)["install"]]
    return {entry["name"]: entry["version"] for entry in entries}


def version_of(python: str) -> str:
    """Return the Python's version as 3.11."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def merge(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Return the lines, `name==version`, with a marker where the Pythons differ."""
    names = {name.lower(): name for found in resolved.values() for name in found}
    lines = []
    for _, name in sorted(names.items()):
        versions = [(python, found.get(name)) for python, found in resolved.items()]
        runs = [list(run) for _, run in itertools.groupby(versions, key=lambda pair: pair[1])]
        for index, run in enumerate(runs):
            version = run[0][1]
            if version is not None:
                lines.append(f"{name}=={version}{_marker(runs, index)}")
    return lines


def _marker(runs: list[list[tuple[str, str | None]]], index: int) -> str:
    """Say for which Pythons a run of equal versions holds; the last also for newer ones."""
    bounds = []
    if index > 0:
        bounds.append(f'python_version >= "{runs[index][0][0]}"')
    if index < len(runs) - 1:
        bounds.append(f'python_version < "{runs[index + 1][0][0]}"')
    return f" ; {' and '.join(bounds)}" if bounds else ""


def main() -> None:
    pythons = sys.argv[1:] or [sys.executable]
    resolved = {version_of(python): resolve(python) for python in pythons}
    CONSTRAINTS.write_text(HEADER + "\n".join(merge(resolved)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
