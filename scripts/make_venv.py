"""
Make a virtual environment with Levada in it, in the versions constraints.txt pins.

    python scripts/make_venv.py FOLDER demo        what `make demo` needs
    python scripts/make_venv.py FOLDER dev         every extra and the development tools
    python scripts/make_venv.py FOLDER suite       and what Django's own tests ask for
    python scripts/make_venv.py FOLDER dev --django 6.0

Needs Python >= 3.11 with venv and pip, nothing else. The dependency groups are
read from pyproject.toml here because pip before 25.1 has no `--group`.
When all is installed the stamp FOLDER/.levada-<profile> is written, which the
Makefile compares with pyproject.toml and constraints.txt.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = {"demo": "demo", "dev": "all", "suite": "all"}
GROUPS = {"demo": (), "dev": ("dev",), "suite": ("dev", "django-suite")}
STAMPS = {"demo": ("demo",), "dev": ("dev", "demo"), "suite": ("suite", "dev", "demo")}
"""Of each profile: the package's extra, the dependency groups, the profiles it holds."""


def pyproject() -> dict:
    """Return pyproject.toml as a dict."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def build_requirements() -> list[str]:
    """Return what building an editable install takes, so that it is pinned like the rest."""
    return [*pyproject()["build-system"]["requires"], "editables"]


def group_requirements(*groups: str) -> list[str]:
    """Return the requirements of dependency groups."""
    return [line for group in groups for line in pyproject()["dependency-groups"][group]]


def constraints(django: str | None) -> list[str]:
    """Return the lines of constraints.txt; `django` ("6.0") replaces the pinned Django."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    if django is None:
        return lines
    kept = [line for line in lines if not line.lower().startswith("django==")]
    return [*kept, f"Django~={django}.0"]


def ensure_venv(folder: Path) -> Path:
    """Make `folder` a virtual environment of this Python unless it is one; return its Python."""
    python = folder / "bin" / "python"
    version = "import sys; print(sys.version_info[:2])"
    found = None
    if python.exists():
        asked = subprocess.run([python, "-c", version], capture_output=True, text=True, check=False)
        found = asked.stdout.strip()
    if found != str(sys.version_info[:2]):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    return python


def install(python: Path, profile: str, django: str | None) -> None:
    """Install the build tools, then Levada editable with the profile's extra and tools."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("\n".join(constraints(django)) + "\n", encoding="utf-8")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--constraint", pins]
        subprocess.run([*pip, *build_requirements()], check=True)
        tools = group_requirements(*GROUPS[profile])
        package = ["--editable", f"{ROOT}[{EXTRAS[profile]}]"]
        # Isolation would fetch the build tools again, unpinned.
        subprocess.run([*pip, "--no-build-isolation", *package, *tools], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("profile", choices=sorted(EXTRAS))
    parser.add_argument("--django", metavar="MAJOR.MINOR", help="instead of the pinned one")
    options = parser.parse_args()
    print(f"Preparing {options.folder} ({options.profile}); this takes a minute once.", flush=True)
    python = ensure_venv(options.folder)
    install(python, options.profile, options.django)
    for profile in STAMPS[options.profile]:
        (options.folder / f".levada-{profile}").touch()


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{Path(str(error.cmd[0])).name} failed with status {error.returncode}.")
