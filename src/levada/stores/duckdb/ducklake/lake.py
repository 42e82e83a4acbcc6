"""Where a lake is, and attaching it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .. import extensions
from ..access import CLOSED
from ..parameters import literal

ATTACHED = "lake"
"""The lake's name in SQL."""

METADATA = f"__ducklake_metadata_{ATTACHED}"
"""The catalogue's name in SQL, chosen by DuckLake."""

SECRET = "levada_catalog"
EXTENSIONS = ("postgres_scanner", "ducklake")
OPTIONS = ("catalog", "data_path", "snapshot")

_NAME = re.compile(r"[A-Za-z_]\w{0,47}", re.ASCII)
_ADDRESS = re.compile(r"\w+://")
_ENGINES = ("django.db.backends.postgresql", "django.contrib.gis.db.backends.postgis")


@dataclass(frozen=True, slots=True)
class Lake:
    """
    name: of the lake, which is a schema of the catalogue's database.
    data_path: absolute path or address of the folder with all Parquet files.
    catalog: host, port, user, password and database of the catalogue, as far as known.
    sslmode: of the connection to the catalogue, '' for the client's choice.
    snapshot: the number of the only snapshot to show, None for the newest at each time.
    """

    name: str
    data_path: str
    catalog: Mapping[str, str | int] = field(hash=False)
    sslmode: str = ""
    snapshot: int | None = None

    @property
    def path(self) -> str:
        """What stands for a file's path: equal for what is one database to a process."""
        server = {name: self.catalog[name] for name in sorted(self.catalog) if name != "password"}
        digest = hashlib.sha256(repr((server, self.snapshot)).encode()).hexdigest()[:8]
        return f":memory:ducklake:{self.name}:{digest}"

    @property
    def folder(self) -> str:
        """Where the files of this lake are."""
        return f"{self.data_path.rstrip('/')}/{self.name}/"

    def attach(self, root: duckdb.DuckDBPyConnection) -> None:
        """Attach the lake to the database of `root`, making it if there is none."""
        if not _ADDRESS.match(self.folder):
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        self._know_catalog(root)
        options = {
            "DATA_PATH": self.folder,
            "METADATA_SCHEMA": self.name,
            "META_SECRET": SECRET,
        }
        if self.snapshot is not None:
            options["SNAPSHOT_VERSION"] = str(self.snapshot)
        given = ", ".join(f"{name} {literal(value)}" for name, value in options.items())
        address = literal(f"ducklake:postgres:{self._mode}")
        root.execute(f"ATTACH {address} AS {ATTACHED} ({given})")

    def drop(self) -> None:
        """Remove the lake: its schema, and its files where they are in a folder of this host."""
        with duckdb.connect(config=dict(CLOSED)) as root:
            extensions.load(root, EXTENSIONS)
            self._know_catalog(root)
            root.execute(f"ATTACH {literal(self._mode)} AS c (TYPE postgres, SECRET {SECRET})")
            sql = f'DROP SCHEMA IF EXISTS "{self.name}" CASCADE'
            root.execute(f"CALL postgres_execute('c', {literal(sql)})")
        if not _ADDRESS.match(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _mode(self) -> str:
        return f"sslmode={self.sslmode}" if self.sslmode else ""

    def _know_catalog(self, root: duckdb.DuckDBPyConnection) -> None:
        """Keep the address of the catalogue where no error and no listing shows it."""
        parts = ", ".join(f"{name} {literal(value)}" for name, value in self.catalog.items())
        root.execute(f"CREATE SECRET {SECRET} (TYPE postgres, {parts})")

    def enter(self, raw: duckdb.DuckDBPyConnection) -> None:
        """Make the lake what names without a database mean on the connection `raw`."""
        raw.execute(f"USE {ATTACHED}")


def lake_of(alias: str, name: str, options: Mapping[str, Any]) -> Lake | None:
    """Return the lake of OPTIONS["ducklake"], None without. Raises ImproperlyConfigured."""
    given = options.get("ducklake")
    if given is None:
        return None
    where = f"DATABASES[{alias!r}]['OPTIONS']['ducklake']"
    if not isinstance(given, Mapping) or not {"catalog", "data_path"} <= set(given):
        raise ImproperlyConfigured(
            f"{where} names no lake. Write {{'catalog': 'default', 'data_path': BASE_DIR / 'lake'}}"
            f": the catalogue is the alias of a PostgreSQL database, or postgresql://…"
        )
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise ImproperlyConfigured(
            f"{where} has no option {unknown[0]!r}. The options are: {', '.join(OPTIONS)}"
        )
    if not _NAME.fullmatch(name):
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}]['NAME'] is {name!r}. A lake's name is a schema of its "
            f"catalogue: up to 48 letters, digits and underscores."
        )
    snapshot = given.get("snapshot")
    if snapshot is not None and (not isinstance(snapshot, int) or snapshot < 0):
        raise ImproperlyConfigured(
            f"{where}['snapshot'] is {snapshot!r}. Write the number of a snapshot; the numbers "
            f"are listed by: SELECT snapshot_id FROM ducklake_snapshots('{ATTACHED}')"
        )
    catalog, sslmode = _catalog(where, given["catalog"])
    data_path = os.fspath(given["data_path"])
    if not _ADDRESS.match(data_path):
        data_path = str(Path(data_path).absolute())
    return Lake(name, data_path, catalog, sslmode, snapshot)


def _catalog(where: str, catalog: Any) -> tuple[dict[str, str | int], str]:
    """Return how to connect to the catalogue, and its sslmode."""
    configured = settings.DATABASES.get(catalog) if isinstance(catalog, str) else None
    if configured and configured["ENGINE"] in _ENGINES:
        found = {
            "host": configured.get("HOST"),
            "port": configured.get("PORT"),
            "user": configured.get("USER"),
            "password": configured.get("PASSWORD"),
            "database": configured.get("NAME"),
        }
        sslmode = (configured.get("OPTIONS") or {}).get("sslmode", "")
    elif isinstance(catalog, str) and catalog.startswith(("postgresql://", "postgres://")):
        url = urlsplit(catalog)
        try:
            port = url.port
        except ValueError as error:
            raise ImproperlyConfigured(f"{where}['catalog'] has no such port: {error}.") from error
        found = {
            "host": url.hostname,
            "port": port,
            "user": url.username and unquote(url.username),
            "password": url.password and unquote(url.password),
            "database": unquote(url.path.lstrip("/")),
        }
        sslmode = parse_qs(url.query).get("sslmode", [""])[0]
    else:
        raise ImproperlyConfigured(
            f"{where}['catalog'] is no PostgreSQL database. Write the alias of one in DATABASES, "
            f"or its address: postgresql://user:password@host:5432/name"
        )
    if not re.fullmatch(r"[a-z-]*", sslmode):
        raise ImproperlyConfigured(f"{where}['catalog'] has no sslmode such as {sslmode!r}.")
    return {name: value for name, value in found.items() if value}, sslmode
