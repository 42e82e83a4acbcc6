"""The workflow, compose.yaml, the Dockerfile and .ci/run agree with the project and each other."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.db import connection

from almanac.config.settings import source_database

ROOT = Path(__file__).resolve().parent.parent.parent


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def load(path: str) -> dict[Any, Any]:
    return yaml.safe_load(read(path))


def classified(prefix: str) -> set[str]:
    """Return the versions that pyproject.toml's classifiers name below `prefix`."""
    classifiers = tomllib.loads(read("pyproject.toml"))["project"]["classifiers"]
    found = (line.removeprefix(f"{prefix} :: ") for line in classifiers)
    return {version for version in found if re.fullmatch(r"\d+\.\d+", version)}


def supported(row: str) -> set[str]:
    """Return the versions docs/limits.md says are tested."""
    (cell,) = re.findall(rf"^\| {row} \| (.*) \|$", read("docs/limits.md"), flags=re.MULTILINE)
    return set(cell.split(", "))


def workflow_jobs() -> dict[str, Any]:
    return load(".github/workflows/ci.yml")["jobs"]


def workflow_commands() -> list[str]:
    return [
        step["run"] for job in workflow_jobs().values() for step in job["steps"] if "run" in step
    ]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))


@pytest.mark.parametrize("key", ["python", "django"])
def test_the_workflow_tests_every_version_the_package_claims(key):
    cells = workflow_jobs()["test"]["strategy"]["matrix"]["include"]
    claimed = {
        "python": classified("Programming Language :: Python"),
        "django": classified("Framework :: Django"),
    }
    assert {cell[key] for cell in cells} == claimed[key]


def test_the_limits_page_names_the_versions_the_package_claims():
    assert supported("Python") == classified("Programming Language :: Python")
    assert supported("Django") == classified("Framework :: Django")


def test_ci_runs_the_oldest_and_the_newest_pair():
    pairs = re.search(r"^MATRIX=\((.*?)\)", read(".ci/run"), flags=re.MULTILINE)
    assert pairs is not None
    newest = f"{max(classified('Programming Language :: Python'))} "
    newest += max(classified("Framework :: Django"))
    assert newest in shlex.split(pairs[1])
    assert "Django==5.2." in read("constraints.txt")


def test_the_workflow_and_ci_call_make_targets_that_exist():
    commands = [*workflow_commands(), read(".ci/run")]
    call = re.compile(r"^\s*make (?:--no-print-directory )?([a-z][a-z-]*)\b", re.MULTILINE)
    called = {target for command in commands for target in call.findall(command)}
    assert {"test", "check", "build", "demo"} <= called
    assert called - make_targets() == set()


def test_the_workflow_needs_its_services_and_pins_its_actions():
    assert workflow_jobs()["test"]["env"]["LEVADA_REQUIRE_SERVICES"] == "1"
    used = [
        step["uses"] for job in workflow_jobs().values() for step in job["steps"] if "uses" in step
    ]
    assert used
    assert [action for action in used if not re.search(r"@v\d+", action)] == []


def compose_postgres() -> str:
    return load("compose.yaml")["services"]["postgres"]["image"]


def test_compose_has_the_postgresql_that_the_limits_page_names():
    assert compose_postgres() == f"postgres:{supported('PostgreSQL as the source').pop()}-bookworm"


@pytest.mark.postgresql
@pytest.mark.django_db
def test_the_limits_page_names_no_newer_postgresql_than_the_tests_run():
    connection.ensure_connection()
    running = connection.pg_version // 10_000
    assert {int(version) for version in supported("PostgreSQL as the source")} <= set(
        range(running + 1)
    )


def test_compose_gives_the_project_a_database_it_can_read():
    services = load("compose.yaml")["services"]
    wanted = source_database(services["almanac"]["environment"]["DATABASE_URL"])
    postgres = services["postgres"]["environment"]
    assert wanted["ENGINE"] == "django.db.backends.postgresql"
    assert (wanted["USER"], wanted["NAME"], wanted["HOST"]) == (
        postgres["POSTGRES_USER"],
        postgres["POSTGRES_DB"],
        "postgres",
    )


def test_what_compose_and_the_dockerfile_set_the_settings_read():
    set_there = set(load("compose.yaml")["services"]["almanac"]["environment"])
    set_there |= set(re.findall(r"\b(ALMANAC_\w+)=", read("Dockerfile")))
    settings = read("almanac/config/settings.py")
    assert {name for name in set_there if f'"{name}"' not in settings} == set()


def test_the_dockerfile_copies_what_exists_and_pins_its_python():
    dockerfile = read("Dockerfile")
    (python,) = re.findall(r"^FROM python:(\d\.\d+)-slim-\w+$", dockerfile, flags=re.MULTILINE)
    assert python in classified("Programming Language :: Python")
    copied = [
        name
        for line in re.findall(r"^COPY (.*)$", dockerfile, flags=re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    extras = re.findall(r'"\.\[([\w,]+)\]"', dockerfile)[0].split(",")
    known = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    assert set(extras) <= set(known)


def test_ports_are_published_on_this_machine_alone():
    ports = [
        port for each in load("compose.yaml")["services"].values() for port in each.get("ports", [])
    ]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("script", [".ci/run"])
def test_shell_scripts_parse(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)
