"""
What must not cross a fork: open connections and held locks.

A child that goes on using its parent's connection writes into the same
stream or file unseen by the parent; one that closes it may delete the
parent's write-ahead log. So a child only forgets them, without closing.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol


class ForkAware(Protocol):
    """Something that owns connections or locks."""

    def abandon(self) -> list[Any]:
        """Start afresh without closing anything; return what must never be closed here."""


_alive: weakref.WeakSet[Any] = weakref.WeakSet()
# Never emptied: a connection that is garbage-collected is a connection that is closed.
_abandoned: list[Any] = []


def watch(owner: ForkAware) -> None:
    """Have `owner.abandon()` called in every child forked from now on."""
    _alive.add(owner)


def keep(connection: Any) -> None:
    """Keep a parent's connection that turned up in a child: never used, never closed."""
    _abandoned.append(connection)


def _after_fork() -> None:
    for owner in list(_alive):
        _abandoned.extend(owner.abandon())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
