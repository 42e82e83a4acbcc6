"""Who has the database file open: this process, once, for all of its connections."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import duckdb

from .connection import Connection, LocalSession
from .failures import named
from .operations import literal

_lock = threading.RLock()
_open: dict[str, duckdb.DuckDBPyConnection] = {}


def connect(path: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Connection:
    """Open a connection to the database at `path`, an instance of which is opened once."""
    with _lock, named(path):
        root = _open.get(path)
        if root is None:
            name = ":memory:" if path.startswith(":memory:") else path
            root = duckdb.connect(name, config=dict(config))
            for setting, value in settings.items():
                root.execute(f"SET GLOBAL {setting} = {literal(value)}")
            _open[path] = root
        return Connection(LocalSession(root.cursor(), path))


def release(path: str) -> None:
    """Close this process's instance of the database at `path`; nothing where there is none."""
    with _lock:
        root = _open.pop(path, None)
        if root is not None:
            root.close()
