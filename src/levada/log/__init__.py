"""
The log: the ordered sequence of records between the outbox and the stores.

`open_log()` opens the one the settings name; `levada.contracts.Log` is what
every log promises, and tests/contract/test_log.py holds each to it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..contracts import Log

__all__ = ["open_log"]


def open_log() -> Log:
    """
    Return the log that `LEVADA["LOG"]` names; within a process always the same object.

    ENGINE is the dotted path of a module with a function `open_log(options)`.
    Raises ConfigurationError where there is no such module.
    """
    from ..conf import settings
    from ..errors import ConfigurationError

    options = dict(settings.LOG)
    engine = options.pop("ENGINE", "levada.log.embedded")
    try:
        module = import_module(engine)
    except ImportError as error:
        raise ConfigurationError(
            f"LEVADA['LOG'] names the engine {engine!r}, which cannot be imported ({error}). "
            f"Write 'levada.log.embedded', 'levada.log.memory' or a module of yours."
        ) from error
    if not hasattr(module, "open_log"):
        raise ConfigurationError(
            f"LEVADA['LOG'] names the engine {engine!r}, a module without open_log(options). "
            f"Write 'levada.log.embedded' or 'levada.log.memory'."
        )
    log: Log = module.open_log(options)
    return log
