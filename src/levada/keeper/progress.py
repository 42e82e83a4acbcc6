"""A progress bar for a terminal; silent where nobody looks."""

from __future__ import annotations

import time
from typing import IO, Any

WIDTH = 30
REDRAW_S = 0.1


class ProgressBar:
    """
    Called as `progress(label, done_rows, total_rows)`, draws one line over and over.

    Several tables may be under way in turn; the line shows the last one
    named. `close()` wipes the line, so that what follows stands alone.
    """

    def __init__(self, stream: IO[str] | Any, *, word: str) -> None:
        self.stream = stream
        self.word = word
        self.active = bool(getattr(stream, "isatty", lambda: False)())
        self._drawn_at = 0.0
        self._length = 0

    def __call__(self, label: str, done_rows: int, total_rows: int | None) -> None:
        """Show that `done_rows` of `total_rows` (0 or None: unknown) of `label` are done."""
        now = time.monotonic()
        finished = bool(total_rows) and done_rows >= (total_rows or 0)
        if not self.active or (now - self._drawn_at < REDRAW_S and not finished):
            return
        self._drawn_at = now
        line = f"{self.word} {label} {bar(done_rows, total_rows)}"
        self._write("\r" + line.ljust(self._length))
        self._length = len(line)

    def close(self) -> None:
        """Wipe the line."""
        if self._length:
            self._write("\r" + " " * self._length + "\r")
            self._length = 0

    def _write(self, text: str) -> None:
        # Django's OutputWrapper ends each write with a newline unless told otherwise.
        getattr(self.stream, "_out", self.stream).write(text)
        self.stream.flush()


def bar(done_rows: int, total_rows: int | None) -> str:
    """Draw a bar with its numbers, only the numbers where the total is unknown."""
    if not total_rows:
        return f"{done_rows:,} rows"
    share = min(1.0, done_rows / total_rows)
    filled = int(share * WIDTH)
    return f"{'█' * filled}{'░' * (WIDTH - filled)} {share:4.0%} {done_rows:,} of {total_rows:,}"
