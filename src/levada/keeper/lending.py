"""Lends a command the parts it needs, where no keeper runs them already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..errors import AlreadyRunning
from .keeper import Keeper
from .locks import holder
from .parts import lock_path


@contextmanager
def kept(*parts: str) -> Iterator[list[str]]:
    """
    Have each of `parts` run for a block, by whoever runs it already or by this process.

    Yields the names of those this process runs itself.
    """
    with ExitStack() as stack:
        own = []
        for part in parts:
            keeper = Keeper([part], health_port=None)
            try:
                keeper.start()
            except AlreadyRunning:
                continue
            stack.callback(keeper.stop)
            own.append(part)
        yield own


def unkept(*parts: str) -> list[str]:
    """Return those of `parts` that nobody runs, as far as locks tell: only an embedded log has."""
    paths = [(part, lock_path(part)) for part in parts]
    return [part for part, path in paths if path is not None and holder(path) is None]
