"""
The words of `manage.py levada`, one module each.

Each has a docstring whose first line is its help, `add_arguments(parser)`,
and `handle(command, options) -> int`, the exit status; `ERROR_STATUS` is the
one for a LevadaError where it is not 1.
"""

from __future__ import annotations

from types import ModuleType

from . import (
    dead_letters,
    doctor,
    forget,
    leave,
    rebuild,
    replay,
    run,
    status,
    triggers,
    uninstall,
    verify,
)
from .failure import Failure

__all__ = ["COMMANDS", "Failure"]

COMMANDS: dict[str, ModuleType] = {
    "run": run,
    "status": status,
    "verify": verify,
    "rebuild": rebuild,
    "replay": replay,
    "doctor": doctor,
    "triggers": triggers,
    "dead-letters": dead_letters,
    "forget": forget,
    "leave": leave,
    "uninstall": uninstall,
}
