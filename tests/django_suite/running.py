"""Runs Django's `runtests.py`, one process an app, each with a limit of time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from .results import AppResult, read_record

INSIDE = Path(__file__).resolve().parent / "inside"
SRC = INSIDE.parent.parent.parent / "src"
_DUMP_S = 5.0
"""How long a process that ran out of time has to print where its threads are."""


@dataclass(frozen=True)
class Plan:
    """How the suite runs. `logs`: where each app's output goes, as APP.log."""

    source: Path
    logs: Path
    limit_s: float
    jobs: int
    processes: int


def run_apps(plan: Plan, labels: dict[str, Sequence[str]]) -> Iterator[AppResult]:
    """Run each app's labels, `plan.jobs` apps at once; yields results as they come."""
    with ThreadPoolExecutor(plan.jobs) as pool:
        waiting = [pool.submit(run_app, plan, app, names) for app, names in labels.items()]
        try:
            for each in as_completed(waiting):
                yield each.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run_app(plan: Plan, app: str, labels: Sequence[str]) -> AppResult:
    """Run one app in a process of its own; a hang or a crash is a failure of the test under way."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="levada-suite-") as folder:
        record = Path(folder) / "record.jsonl"
        record.touch()
        log = plan.logs / f"{app}.log"
        ended = _run(plan, labels, record, log)
        lines = record.read_text(encoding="utf-8").splitlines()
    result = read_record(app, lines, ended)
    result.seconds = time.monotonic() - began
    if app in result.reasons:
        result.reasons[app] += "\n" + log.read_text(encoding="utf-8", errors="replace")[-4000:]
    return result


def _run(plan: Plan, labels: Sequence[str], record: Path, log: Path) -> str | None:
    """Return None where the process ended well, else how it ended."""
    command = [sys.executable, "-X", "faulthandler", "runtests.py", "--noinput"]
    command += ["--settings=levada_settings", f"--parallel={plan.processes}", *labels]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=plan.source / "tests",
            env=_environment(record),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(plan.limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"ran out of its {plan.limit_s:g} s"
        except BaseException:
            _end(process)
            raise
    return None if status == 0 else f"ended with status {status}"


def _environment(record: Path) -> dict[str, str]:
    path = os.pathsep.join((str(INSIDE), str(SRC)))
    environment = {**os.environ, "PYTHONPATH": path, "LEVADA_SUITE_RECORD": str(record)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    return environment


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children; faulthandler first writes their threads into the log."""
    steps: tuple[tuple[signal.Signals, Callable[[], object]], ...] = (
        (signal.SIGABRT, lambda: process.wait(_DUMP_S)),
        (signal.SIGKILL, process.wait),
    )
    for number, wait in steps:
        try:
            os.killpg(process.pid, number)
            wait()
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
