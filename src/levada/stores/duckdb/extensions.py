"""
DuckDB's extensions, loaded from what lies on this machine and never from the network.

An entry of OPTIONS["extensions"] is a name or the path of a file that ends in
`.duckdb_extension`. A name is looked for in DuckDB itself, in an installed
package `duckdb-extension-NAME` (PyPI has some, made from DuckDB's own builds
and with its signature), and in DuckDB's folder, where `INSTALL NAME` puts it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from os import PathLike, fspath
from pathlib import Path

import duckdb

from ...errors import MissingExtension
from .parameters import literal

SUFFIX = ".duckdb_extension"


def load(root: duckdb.DuckDBPyConnection, extensions: Iterable[str]) -> None:
    """Load `extensions` into the database of `root`. Raises MissingExtension."""
    wanted = list(extensions)
    if not wanted:
        return
    known = dict(
        root.execute(
            "SELECT extension_name, loaded OR installed FROM duckdb_extensions()"
        ).fetchall()
    )
    for each in wanted:
        if each.endswith(SUFFIX):
            _load(root, each, each)
        elif packaged := _packaged(each):
            _load(root, each, str(packaged))
        elif known.get(each):
            _load(root, each, each)
        else:
            raise MissingExtension(_missing(each, "it is not on this machine"))


def entries_of(entries: Iterable[str | PathLike[str]]) -> tuple[str, ...]:
    """Return OPTIONS["extensions"] as names and absolute paths."""
    texts = [fspath(each) for each in entries]
    return tuple(str(Path(each).absolute()) if each.endswith(SUFFIX) else each for each in texts)


def _load(root: duckdb.DuckDBPyConnection, name: str, what: str) -> None:
    try:
        root.execute(f"LOAD {literal(what)}")
    except duckdb.Error as error:
        raise MissingExtension(_missing(name, str(error))) from error


def _packaged(name: str) -> Path | None:
    """Return the file in the package of the extension, if there is one for this DuckDB."""
    package = f"duckdb_extension_{name}"
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or found.origin is None:
        return None
    version = f"v{duckdb.__version__}"
    path = Path(found.origin).parent / "extensions" / version / f"{name}{SUFFIX}"
    return path if path.exists() else None


def _missing(name: str, reason: str) -> str:
    package = f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
    how = (
        "See that the file is there and of this version."
        if name.endswith(SUFFIX)
        else f"Run: pip install {package}, or once, where there is a network, in DuckDB: "
        f"INSTALL {name}; or name the path of its {SUFFIX} file in OPTIONS['extensions']."
    )
    return f"DuckDB {duckdb.__version__} cannot load the extension {name}: {reason}. {how}"
