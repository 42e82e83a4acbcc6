"""The demo and the reference project as processes of their own, for tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CLEARED = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "DISPLAY", "WAYLAND_DISPLAY")


def environment(**extra: str) -> dict[str, str]:
    """Return what a process of ours needs to find the code, and nothing of the test suite's."""
    kept = {name: value for name, value in os.environ.items() if name not in CLEARED}
    path = os.pathsep.join(path for path in sys.path if path)
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}


def check_demo(data: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run `levada demo --check` in `data` to its end."""
    command = [sys.executable, "-m", "levada", "demo", "--check", "--port", "0"]
    return subprocess.run(
        [*command, "--data", str(data), *arguments],
        capture_output=True,
        text=True,
        env=environment(**extra),
        check=False,
        timeout=240,
    )


@dataclass
class Demo:
    """A running demo: its process, its address, and what it printed before it was ready."""

    process: subprocess.Popen[str]
    url: str
    output: str

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send the signal; return exit status and the rest of the output."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=60)
        return self.process.returncode, rest

    def kill(self) -> None:
        """End it whatever it does."""
        self.process.kill()
        self.process.communicate()


def start_demo(data: Path, rows: int, extra: Mapping[str, str] | None = None) -> Demo:
    """Start the demo in `data` on a free port and return once it serves."""
    command = [sys.executable, "-m", "levada", "demo", "--port", "0", "--no-browser"]
    process = subprocess.Popen(
        [*command, "--data", str(data), "--rows", str(rows)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**(extra or {})),
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    output = "".join(lines)
    found = re.search(r"http://127\.0\.0\.1:\d+/", output)
    if not found:
        rest, _ = process.communicate(timeout=60)
        raise AssertionError(f"the demo did not come up:\n{output}{rest}")
    return Demo(process, found[0], output)
