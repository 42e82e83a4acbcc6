"""Two clocks: the wall's, and the CPU time of this process and its PostgreSQL backend."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
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
    CPU seconds of the server processes that answer us.

    Read from /proc, so the server must run on this machine, on Linux;
    otherwise 0 at all times, as for SQLite, whose work is our own.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        paths = [Path(f"/proc/{pid}/schedstat") for pid in pids]
        self._paths = [path for path in paths if path.exists()]

    @classmethod
    def of(cls, connection: Any) -> ServerClock:
        """Return the clock of the server process behind a Django connection."""
        if connection.vendor != "postgresql":
            return cls(())
        connection.ensure_connection()
        return cls([connection.connection.info.backend_pid])

    def read_s(self) -> float:
        """Return the seconds so far."""
        texts = [path.read_text(encoding="ascii") for path in self._paths]
        return sum(int(text.split()[0]) for text in texts) / 1e9


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
