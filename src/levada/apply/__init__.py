"""Apply: log to stores; snapshot, rebuild, verify, handlers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .applier import Applier
    from .dead_letters import drop, retry
    from .lag import Lag
    from .rebuilding import rebuild
    from .verifying import Verification, verify

__all__ = ["Applier", "Lag", "Verification", "drop", "rebuild", "retry", "verify"]

_PLACES = {
    "Applier": ".applier",
    "Lag": ".lag",
    "Verification": ".verifying",
    "drop": ".dead_letters",
    "rebuild": ".rebuilding",
    "retry": ".dead_letters",
    "verify": ".verifying",
}


def __getattr__(name: str) -> Any:
    # Late, so that handlers can be imported where DuckDB is not installed.
    if name not in _PLACES:
        raise AttributeError(name)
    return getattr(import_module(_PLACES[name], __name__), name)
