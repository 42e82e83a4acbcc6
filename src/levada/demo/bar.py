"""A progress bar for a terminal; elsewhere one line when a step is done."""

from __future__ import annotations

import sys
from time import perf_counter
from types import TracebackType
from typing import TextIO

WIDTH = 28
NAME_WIDTH = 40
REDRAW_S = 0.1


class Bar:
    """
    One step of the demo.

    with Bar("Loading", total=100) as bar:
        bar.to(50)

    to() may be told another total; the closing line says how long it took.
    """

    def __init__(self, name: str, total: int = 0, out: TextIO | None = None) -> None:
        self.name = name
        self.total = total
        self.done = 0
        self.note = ""
        self._out = out or sys.stdout
        self._live = self._out.isatty()
        self._started = perf_counter()
        self._drawn = 0.0

    def __enter__(self) -> Bar:
        self._draw()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._out.write("\r\033[K")
        if kind is None:
            took = perf_counter() - self._started
            note = f"  {self.note}" if self.note else ""
            print(f"  {self.name:<{NAME_WIDTH}} {took:>6.1f} s{note}", file=self._out, flush=True)

    def to(self, done: int, total: int | None = None) -> None:
        """Say how far the step is."""
        self.done = done
        if total is not None:
            self.total = total
        if perf_counter() - self._drawn >= REDRAW_S:
            self._draw()

    def _draw(self) -> None:
        if not self._live:
            return
        self._drawn = perf_counter()
        if not self.total:
            text = f"  {self.name} …"
        else:
            part = min(1.0, self.done / self.total)
            filled = round(WIDTH * part)
            line = "━" * filled + "─" * (WIDTH - filled)
            text = f"  {self.name:<{NAME_WIDTH}} {line} {self.done:,} of {self.total:,}"
        self._out.write(f"\r\033[K{text}")
        self._out.flush()
