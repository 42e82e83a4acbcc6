"""
Run what the pages show.

A page's fenced blocks run in order, in one empty folder, if their info string
says so; the others are pictures. The marks:

    ```console run           each `$ line` in a shell; the lines below it are its output
    ```console background    the one `$ line` keeps running until the page ends
    ```python file=a/b.py    written to that file; a second block for it is appended
    ```python run            run with the project's Django set up, as manage.py shell would

In expected output `…` stands for anything. A block without a mark never runs.
A page that starts no project runs in a copy of the one in `shop_project`, and
what only the test needs to see stands in an HTML comment.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(?P<info>\S[^\n]*)\n(?P<text>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 120
SHOP_PROJECT = Path(__file__).parent / "shop_project"

SETUP = """\
import os, django
os.environ.setdefault("DJANGO_SETTINGS_MODULE", {settings!r})
django.setup()
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language, its marks, its text, and the page's line it starts at."""

    language: str
    marks: tuple[str, ...]
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file it is written to, if it says one."""
        named = [mark.removeprefix("file=") for mark in self.marks if mark.startswith("file=")]
        return named[0] if named else None


@dataclass(frozen=True, slots=True)
class Command:
    """One `$ line` of a console block, with the output lines shown below it."""

    line: str
    output: tuple[str, ...]


def blocks(page: str) -> list[Block]:
    """Return the page's fenced blocks, in order."""
    found = []
    for match in FENCE.finditer(page):
        language, *marks = match["info"].split()
        line = page.count("\n", 0, match.start()) + 1
        found.append(Block(language, tuple(marks), match["text"], line))
    return found


def commands(text: str) -> list[Command]:
    """Read the commands of a console block, each with its output."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and line.strip():
            found[-1][1].append(line.strip())
    return [Command(line, tuple(output)) for line, output in found]


def shown(expected: str, output: str) -> bool:
    """Say whether a line of `output` is as `expected`, with `…` for anything."""
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in expected.split("…")))
    # A page shows columns apart for the eye; how far apart is not its promise.
    return any(pattern.fullmatch(" ".join(line.split())) for line in output.splitlines()) or any(
        pattern.fullmatch(line.strip()) for line in output.splitlines()
    )


class Run:
    """One page being run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: set[str] = set()
        self.background = ExitStack()
        self.noise = folder.parent / "background.out"

    def block(self, block: Block) -> None:
        """Do what the block's marks say."""
        if block.file is not None:
            self._write(block.file, block.text)
        elif "background" in block.marks:
            (command,) = commands(block.text)
            self.background.enter_context(self._running(command.line))
        elif "run" in block.marks and block.language == "console":
            for command in commands(block.text):
                self._shell(command)
        elif "run" in block.marks:
            self._python(block.text)

    def overheard(self) -> str:
        """Return what the background command has printed so far."""
        return self.noise.read_text(encoding="utf-8") if self.noise.exists() else ""

    def close(self) -> None:
        """Stop what still runs in the background."""
        self.background.close()

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in self.written or path.exists():
            text = f"{path.read_text(encoding='utf-8')}\n\n{text}"
        path.write_text(text, encoding="utf-8")
        self.written.add(name)

    def _shell(self, command: Command) -> None:
        marker = self.folder.parent / "folder-after"
        script = f"set -e\n{command.line}\npwd > {shlex.quote(str(marker))}"
        output = self._finish(["bash", "-c", script], command.line)
        self.folder = Path(marker.read_text(encoding="utf-8").strip())
        for line in command.output:
            assert shown(line, output), f"`{command.line}` did not print {line!r} but:\n{output}"

    def _python(self, text: str) -> None:
        (settings,) = self.folder.glob("*/settings.py")
        setup = SETUP.format(settings=f"{settings.parent.name}.settings")
        self._finish([sys.executable, "-W", "error", "-c", setup + text], text)

    def _finish(self, command: list[str], shown_as: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{shown_as}\nfailed:\n{done.stdout}"
        return done.stdout

    @contextmanager
    def _running(self, line: str) -> Iterator[None]:
        output = self.noise.open("w+")
        child = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=self.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        with output:
            try:
                yield
                early = child.poll() is not None
            finally:
                child.send_signal(signal.SIGTERM)
                status = child.wait(timeout=TIMEOUT_S)
            output.seek(0)
            assert not early, f"`{line}` ended too early, status {status}:\n{output.read()}"
            stopped = (0, -signal.SIGTERM)
            assert status in stopped, f"`{line}` ended with status {status}:\n{output.read()}"


def environment() -> dict[str, str]:
    """Return the pages' environment: this Python first, this import path, no settings of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LEVADA_", "DJANGO_", "PYTEST_"))
    }
    bin_folder = str(Path(sys.executable).parent)
    return {
        **kept,
        "PATH": os.pathsep.join([bin_folder, kept.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def run_page(page: str, folder: Path) -> int:
    """Run the marked blocks of `page` in `folder`; returns how many ran. Raises AssertionError."""
    project = folder / "project"
    if "startproject" in page:
        project.mkdir()
    else:
        shutil.copytree(SHOP_PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    run = Run(project)
    ran = 0
    try:
        for block in blocks(page):
            if block.marks:
                run.block(block)
                ran += 1
    except AssertionError as error:
        raise AssertionError(f"{error}\nIn the background:\n{run.overheard()}") from None
    finally:
        run.close()
    return ran
