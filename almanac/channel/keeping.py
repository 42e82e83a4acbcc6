"""
The keeper inside the web process: the relay runs throughout, the applier can be paused.

A deleted replica stays deleted until somebody presses Rebuild, so its applier
must not run meanwhile. It is therefore a keeper of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from levada.keeper import Keeper

from .places import REPLICA

_lock = threading.RLock()
_relay: Keeper | None = None
_applier: Keeper | None = None


def start() -> None:
    """Start relay and applier. Raises AlreadyRunning if another process keeps them."""
    global _relay
    with _lock:
        if _relay is None:
            relay = Keeper(only=["relay", "retention"])
            relay.start()
            _relay = relay
        resume()


def stop() -> None:
    """Stop both, each after the batch it is in."""
    global _relay
    with _lock:
        pause()
        if _relay is not None:
            _relay.stop()
            _relay = None


def pause() -> None:
    """Stop the applier alone; what commits meanwhile waits in the log."""
    global _applier
    with _lock:
        if _applier is not None:
            _applier.stop()
            _applier = None


def resume() -> None:
    """Start the applier again where it is paused."""
    global _applier
    with _lock:
        if _applier is None:
            applier = Keeper(only=[f"apply:{REPLICA}"])
            applier.start()
            _applier = applier


def applying() -> bool:
    """Say whether the applier runs in this process."""
    return _applier is not None


@contextmanager
def kept() -> Iterator[None]:
    """Keep the stores for as long as the block lasts."""
    start()
    try:
        yield
    finally:
        stop()
