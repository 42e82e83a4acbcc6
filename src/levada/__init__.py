"""
Levada: one commit, every store.

Importing it needs Django alone; a name is imported from its module when it is
first used, so settings and models may import `levada` before the app registry
is ready.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .apply.subscriptions import subscribe
    from .changes import Change, Position, SourcePosition
    from .outbox import publish
    from .reading import aposition, await_for, position, replica, wait_for

__version__ = "0.1.0"

_HOMES = {
    "Change": "levada.changes",
    "Position": "levada.changes",
    "SourcePosition": "levada.changes",
    "aposition": "levada.reading",
    "await_for": "levada.reading",
    "position": "levada.reading",
    "publish": "levada.outbox",
    "replica": "levada.reading",
    "subscribe": "levada.apply.subscriptions",
    "wait_for": "levada.reading",
}
"""Each public name and the module that holds it."""

__all__ = [
    "Change",
    "Position",
    "SourcePosition",
    "__version__",
    "aposition",
    "await_for",
    "position",
    "publish",
    "replica",
    "subscribe",
    "wait_for",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
