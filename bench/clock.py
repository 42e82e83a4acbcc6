"""Two clocks: the wall's, and the CPU time of this process and its PostgreSQL backend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Span:
    """Seconds by the wall and of CPU; `cpu_s` counts the server's share where it can be read."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


class ServerClock:
    """
    CPU seconds of the server process behind a Django connection.

    Read from /proc, so the server must run on this machine, on Linux;
    otherwise 0 at all times, as for SQLite, whose work is our own.
    """

    def __init__(self, connection: Any) -> None:
        self._path: Path | None = None
        if connection.vendor == "postgresql":
            connection.ensure_connection()
            path = Path(f"/proc/{connection.connection.info.backend_pid}/schedstat")
            self._path = path if path.exists() else None

    def read_s(self) -> float:
        """Return the seconds so far."""
        if self._path is None:
            return 0.0
        return int(self._path.read_text(encoding="ascii").split()[0]) / 1e9


@contextmanager
def timed(server: ServerClock | None = None) -> Iterator[Span]:
    """Measure the block; the span's fields are set when it ends."""
    span = Span()
    theirs = server.read_s() if server else 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    yield span
    span.wall_s = time.perf_counter() - wall
    span.cpu_s = time.process_time() - cpu
    if server:
        span.cpu_s += server.read_s() - theirs
