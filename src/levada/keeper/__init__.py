"""
Keeper: runs relay, appliers, handlers and retention in one process, and tells how they fare.

The only package that knows every mover. Nothing here runs by itself: a
project starts it with `manage.py levada run`, or with `Keeper().start()`
inside a process of its own.
"""

from __future__ import annotations

from .keeper import Keeper
from .supervisor import PartStatus

__all__ = ["Keeper", "PartStatus"]
