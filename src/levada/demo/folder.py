"""The demo's folder: one demo at a time works in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from levada.errors import LevadaError


class FolderTaken(LevadaError):
    """Another demo works in the folder, or it cannot be written."""


@contextmanager
def own(folder: Path) -> Iterator[None]:
    """
    Make `folder` and hold it for as long as the block lasts.

    The lock goes with the process, however it ends. Raises FolderTaken.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "demo.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise FolderTaken(
            f"{folder} cannot hold the demo's data ({error.strerror}). "
            f"Choose another folder with --data DIR."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise FolderTaken(
            f"Another demo works in {folder}. Stop it, or choose another folder with --data DIR."
        ) from None
    try:
        yield
    finally:
        os.close(lock)
