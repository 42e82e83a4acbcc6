"""
One keeper per part: a file beside the log, locked as long as its process lives.

The kernel drops a flock when its process dies, however it dies, so a lock is
never left behind and never needs breaking. The file says who holds it; it is
emptied, not removed, on release: removing a locked file lets two hold it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import AlreadyRunning

GLANCE_S = 0.5
"""How long `acquire` goes on trying: `holder` of another process locks for a blink."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who keeps a part: the process and when it began, seconds since the epoch."""

    pid: int
    since: float


class PartLock:
    """The lock of one part, `path` its file."""

    def __init__(self, path: Path, part: str) -> None:
        self.path = path
        self.part = part
        self._file: IO[str] | None = None
        self._pid = 0

    def acquire(self) -> None:
        """Take the lock. Raises AlreadyRunning, naming the process that has it."""
        file = self.path.open("a+")
        if not _try_lock(file, fcntl.LOCK_EX, GLANCE_S):
            file.close()
            raise AlreadyRunning(self._message(_read(self.path)))
        self._file, self._pid = file, os.getpid()
        file.truncate(0)
        json.dump({"pid": self._pid, "since": time.time()}, file)
        file.flush()

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        file, self._file = self._file, None
        if file is None:
            return
        # A forked child shares the lock with its parent: closing is all it may do.
        if self._pid == os.getpid():
            file.truncate(0)
            fcntl.flock(file, fcntl.LOCK_UN)
        file.close()

    def _message(self, holder: Holder | None) -> str:
        by = f"process {holder.pid}" if holder else "another process"
        stop = f"kill {holder.pid}" if holder else f"fuser {self.path}"
        return (
            f"{self.part} is already kept by {by} (lock {self.path}). "
            f"Let it work, or stop it first: {stop}"
        )


def holder(path: Path) -> Holder | None:
    """Say who holds the lock in `path` now, None for nobody."""
    try:
        file = path.open()
    except FileNotFoundError:
        return None
    with file:
        if _try_lock(file, fcntl.LOCK_SH, 0):
            return None
        return _read(path) or Holder(0, 0.0)


def _try_lock(file: IO[str], kind: int, patience_s: float) -> bool:
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(0.02)
        else:
            return True


def _read(path: Path) -> Holder | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path.read_text())
        return Holder(int(found["pid"]), float(found["since"]))
    return None


@contextlib.contextmanager
def held(lock: PartLock) -> Iterator[PartLock]:
    """Hold `lock` for a block. Raises AlreadyRunning."""
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


LockFor = Callable[[str], PartLock | None]
"""Gives the lock of a part by its name; None where a part needs none."""
