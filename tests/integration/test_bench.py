"""The benchmarks run, at a size that says nothing about speed, and report what they should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.settings import SOURCE_URL

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = "postgresql" if SOURCE_URL else "sqlite"


def run(name: str, folder: Path, *options: str) -> dict[str, Any]:
    """Run a benchmark in a process of its own; returns the figures it wrote."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "-m", f"bench.{name}", f"--source={SOURCE_URL}", *options]
    done = subprocess.run(
        [*command, f"--out={folder}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / f"{name}-{SOURCE}.json").read_text(encoding="utf-8"))
    text = (folder / f"{name}-{SOURCE}.md").read_text(encoding="utf-8")
    assert report["command"] == f"python -m bench.{name} {' '.join(options)}"
    assert report["command"] in text
    assert report["machine"]["processor"] in text
    assert all(aim[0] in text for aim in report["aims"])
    return report["figures"]


def test_capture_measures_every_operation_with_and_without(tmp_path):
    figures = run("capture", tmp_path, "--rows", "200", "--rounds", "1")
    assert figures["plain"].keys() == figures["captured"].keys() >= {"save", "update", "delete"}
    spans = [span for kind in figures.values() for span in kind.values()]
    assert all(span["wall_s"] > 0 and span["cpu_s"] > 0 for span in spans)


def test_latency_follows_every_change_into_the_replica(tmp_path):
    figures = run("latency", tmp_path, "--rows", "500", "--pace", "50", "--seconds", "3")
    assert {"insert", "update", "bare"} == figures["full_load"].keys()
    assert figures["steady"]["changes"] == 150
    assert 0 <= figures["steady"]["p50_s"] <= figures["steady"]["p99_s"]


def test_queries_answer_the_same_on_both_sides(tmp_path):
    figures = run("queries", tmp_path, "--rows", "3000", "--repeats", "1")
    assert len(figures["queries"]) >= 13
    assert [name for name, found in figures["queries"].items() if not found["equal"]] == []


def test_lags_are_from_the_commit_to_the_first_sight():
    latency = pytest.importorskip("bench.latency")
    commits = [(10.0, 1, 2), (11.0, 3, 3), (12.0, 4, 6)]
    samples = [(10.5, 2), (12.25, 5), (12.75, 6)]
    assert latency.lags_of(commits, samples, after=0) == [0.5, 1.25, 0.75]
    assert latency.lags_of(commits, samples, after=11.5) == [0.75]


def test_backend_is_measured_beside_bare_duckdb(tmp_path):
    figures = run("backend", tmp_path, "--rows", "3000", "--repeats", "1")
    assert len(figures["queries"]) == 10
    assert [name for name, found in figures["queries"].items() if not found["equal"]] == []
    for part in ("instances", "written", "created"):
        assert all(seconds > 0 for seconds in figures[part].values())
