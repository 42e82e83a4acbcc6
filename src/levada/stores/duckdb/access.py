"""
What a database may reach beside its own file: nothing, unless OPTIONS say so.

DuckDB by itself reads and writes any file its process can, fetches extensions
from the network and loads them, all from within SQL. Here raw SQL reaches the
files and addresses of OPTIONS["external"], extensions are those of
OPTIONS["extensions"], and no statement can change a setting afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from .extensions import SUFFIX, entries_of

CLOSED: Mapping[str, Any] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_unsigned_extensions": False,
    # Secrets in the user's home would be used without the project's settings.
    "allow_persistent_secrets": False,
}
"""Settings a database opens with; OPTIONS["config"] may name them itself."""

OURS = ("enable_external_access", "allowed_directories", "allowed_paths")
"""Settings that follow from OPTIONS["external"] and have no place in OPTIONS["config"]."""

_ADDRESS = re.compile(r"\w+://")


@dataclass(frozen=True, slots=True)
class Access:
    """
    What SQL may reach.

    external: True for all files and addresses, else the absolute paths and
        addresses that may be read and written, each with all that lies below.
    extensions: names and absolute paths of the extensions to load.
    """

    external: bool | tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """Return DuckDB's settings for it, in the order they have to be set."""
        if self.external is True:
            return {}
        reach = list(self.external or ())
        # Nobody knows whether a path that is not there yet will be a file or a folder.
        named = {"allowed_paths": reach, "allowed_directories": reach} if reach else {}
        return {**named, "enable_external_access": False}

    def opened_for(self, folder: str) -> Access:
        """Return an access that also reaches `folder`."""
        if self.external is True:
            return self
        return replace(self, external=(*(self.external or ()), folder))


NOTHING = Access()
"""What SQL may reach where no settings say otherwise."""


def access_of(alias: str, options: Mapping[str, Any]) -> Access:
    """Return what the OPTIONS of the database `alias` permit. Raises ImproperlyConfigured."""
    external = options.get("external", ())
    if not isinstance(external, bool):
        if not isinstance(external, (list, tuple, set, frozenset)):
            raise ImproperlyConfigured(
                f"DATABASES[{alias!r}]['OPTIONS']['external'] is {external!r}. "
                f"Write a list of folders, files and addresses, or True for all of them."
            )
        external = tuple(_absolute(alias, each) for each in external)
    extensions = options.get("extensions", ())
    if not isinstance(extensions, (list, tuple)) or not all(
        isinstance(each, (str, PathLike)) for each in extensions
    ):
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}]['OPTIONS']['extensions'] is {extensions!r}. "
            f"Write a list of names and of paths that end in {SUFFIX}."
        )
    return Access(external, entries_of(extensions))


def config_of(alias: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings the database opens with. Raises ImproperlyConfigured."""
    config = options.get("config") or {}
    if not isinstance(config, Mapping):
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}]['OPTIONS']['config'] is {config!r}. "
            f"Write a dict of DuckDB's settings, such as {{'memory_limit': '4GB'}}."
        )
    for name in config:
        if name.lower() in OURS:
            raise ImproperlyConfigured(
                f"DATABASES[{alias!r}]['OPTIONS']['config'] has {name!r}. Write the folders and "
                f"addresses into OPTIONS['external'] instead, or True there for all of them."
            )
    return dict(config)


def _absolute(alias: str, entry: str | PathLike[str]) -> str:
    if not isinstance(entry, (str, PathLike)) or not fspath(entry):
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}]['OPTIONS']['external'] holds {entry!r}, which is no path. "
            f"Write folders, files and addresses, such as BASE_DIR / 'lake' or 's3://bucket/'."
        )
    text = fspath(entry)
    return text if _ADDRESS.match(text) else str(Path(text).absolute())
