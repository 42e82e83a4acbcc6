"""
A Django database backend on DuckDB.

    DATABASES["analytics"] = {"ENGINE": "levada.stores.duckdb", "NAME": BASE_DIR / "a.duckdb"}

OPTIONS: `config`, a dict of DuckDB settings for the instance
(`{"memory_limit": "4GB", "threads": 4}`); `external`, the folders, files and
addresses that SQL may read and write, none by default; `extensions`, those of
DuckDB to load, by name or path; `ducklake`, the catalogue and data folder of
a DuckLake; `null_order`,
"postgresql" or "sqlite": where ORDER BY puts NULL, by default as the
replicated source does; `timeout_s`, how long a statement waits for the process
that owns the file; `savepoint_bytes`, how much a transaction may write and
still have savepoints.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.validation import BaseDatabaseValidation
from django.utils.asyncio import async_unsafe

from ...conf import user_settings
from ...errors import SavepointLost, StoreGone
from . import dbapi, functions, ownership, references
from .access import access_of, config_of
from .client import DatabaseClient
from .connection import Connection, Cursor
from .creation import DatabaseCreation
from .ducklake.backend import adapt
from .ducklake.lake import Lake, lake_of
from .features import DatabaseFeatures
from .introspection import DatabaseIntrospection
from .operations import DatabaseOperations
from .parameters import to_duckdb
from .savepoints import SAVEPOINT_BYTES
from .schema import DatabaseSchemaEditor
from .validation import DatabaseValidation

NULL_ORDERS = {
    "postgresql": "NULLS_LAST_ON_ASC_FIRST_ON_DESC",
    "sqlite": "NULLS_FIRST_ON_ASC_LAST_ON_DESC",
}
"""Where ORDER BY puts NULL: as the largest value, or as the smallest."""

OPTIONS = (
    "config",
    "ducklake",
    "extensions",
    "external",
    "null_order",
    "savepoint_bytes",
    "timeout_s",
)

functions.register()


def _varchar(field: dict[str, Any]) -> str:
    return "VARCHAR" if field["max_length"] is None else f"VARCHAR({field['max_length']})"


class DjangoCursor(Cursor):
    """A cursor that takes Django's `%s` and `%(name)s`."""

    def __init__(self, connection: Connection, zone: datetime.tzinfo) -> None:
        super().__init__(connection)
        self._zone = zone
        self.last_sql: str | None = None
        self.tables: dict[str, Any] | None = None
        """Arrow tables for the next statement: Django's wrapper has no argument for them."""

    def execute(self, sql: str, params: Any = None, *, arrow: Any = None) -> DjangoCursor:
        """Run one statement; without `params` a percent sign is only a percent sign."""
        tables, self.tables, self.last_sql = self.tables, None, sql
        sql, params = to_duckdb(sql, params, self._zone)
        super().execute(sql, params, arrow=arrow or tables)
        return self


class DatabaseWrapper(BaseDatabaseWrapper):
    """
    One thread's connection to a DuckDB database.

    `connection` is a `levada.stores.duckdb.connection.Connection`: beside
    DB-API it has `execute(…, arrow=…)` and `fetch_arrow(…)`.
    """

    create = True
    """Whether a file is made where there is none; who only looks sets it to False."""

    vendor = "duckdb"
    display_name = "DuckDB"
    data_types = {
        "AutoField": "INTEGER",
        "BigAutoField": "BIGINT",
        "SmallAutoField": "SMALLINT",
        "BinaryField": "BLOB",
        "BooleanField": "BOOLEAN",
        "CharField": _varchar,
        "DateField": "DATE",
        "DateTimeField": "TIMESTAMP",
        "DecimalField": "DECIMAL(%(max_digits)s, %(decimal_places)s)",
        "DurationField": "INTERVAL",
        "FileField": "VARCHAR(%(max_length)s)",
        "FilePathField": "VARCHAR(%(max_length)s)",
        "FloatField": "DOUBLE",
        "IntegerField": "INTEGER",
        "BigIntegerField": "BIGINT",
        "IPAddressField": "VARCHAR(15)",
        "GenericIPAddressField": "VARCHAR(39)",
        "JSONField": "JSON",
        "OneToOneField": "INTEGER",
        "PositiveBigIntegerField": "BIGINT",
        "PositiveIntegerField": "INTEGER",
        "PositiveSmallIntegerField": "SMALLINT",
        "SlugField": "VARCHAR(%(max_length)s)",
        "SmallIntegerField": "SMALLINT",
        "TextField": "VARCHAR",
        "TimeField": "TIME",
        "UUIDField": "UUID",
    }
    data_type_check_constraints = {
        "PositiveBigIntegerField": "%(qn_column)s >= 0",
        "PositiveIntegerField": "%(qn_column)s >= 0",
        "PositiveSmallIntegerField": "%(qn_column)s >= 0",
    }
    operators = {
        "exact": "= %s",
        "iexact": "ILIKE %s ESCAPE '\\'",
        "contains": "LIKE %s ESCAPE '\\'",
        "icontains": "ILIKE %s ESCAPE '\\'",
        "gt": "> %s",
        "gte": ">= %s",
        "lt": "< %s",
        "lte": "<= %s",
        "startswith": "LIKE %s ESCAPE '\\'",
        "endswith": "LIKE %s ESCAPE '\\'",
        "istartswith": "ILIKE %s ESCAPE '\\'",
        "iendswith": "ILIKE %s ESCAPE '\\'",
    }
    pattern_esc = r"REPLACE(REPLACE(REPLACE({}, '\', '\\'), '%%', '\%%'), '_', '\_')"
    pattern_ops = {
        "contains": r"LIKE '%%' || {} || '%%' ESCAPE '\'",
        "icontains": r"ILIKE '%%' || {} || '%%' ESCAPE '\'",
        "startswith": r"LIKE {} || '%%' ESCAPE '\'",
        "istartswith": r"ILIKE {} || '%%' ESCAPE '\'",
        "endswith": r"LIKE '%%' || {} ESCAPE '\'",
        "iendswith": r"ILIKE '%%' || {} ESCAPE '\'",
    }

    _lost: Exception | None = None
    """Why the transaction that is open will be rolled back, though nobody asked for it."""
    _raised_before: BaseException | None = None
    """The exception that was being handled when the transaction began."""

    Database = dbapi
    SchemaEditorClass = DatabaseSchemaEditor
    client_class = DatabaseClient
    creation_class = DatabaseCreation
    features_class = DatabaseFeatures
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations
    validation_class: type[BaseDatabaseValidation] = DatabaseValidation

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        if "ducklake" in (settings_dict.get("OPTIONS") or {}):
            adapt(self)
        super().__init__(settings_dict, alias)

    @property
    def lake(self) -> Lake | None:
        """The DuckLake the database is, if it is one. Raises ImproperlyConfigured."""
        name = str(self.settings_dict["NAME"] or "")
        lake = lake_of(self.alias, name, self.settings_dict["OPTIONS"])
        if lake is not None and self.alias in (user_settings().get("REPLICATE") or {}):
            raise ImproperlyConfigured(
                f"LEVADA['REPLICATE'] names {self.alias}, which is a DuckLake. A replica is a "
                f"file: take 'ducklake' out of its OPTIONS, or {self.alias} out of REPLICATE."
            )
        return lake

    @property
    def path(self) -> str:
        """The database's file as absolute path, or `:memory:` and the alias."""
        name = str(self.settings_dict["NAME"] or "")
        if not name:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}] has no NAME. "
                f"Write: 'NAME': BASE_DIR / '{self.alias}.duckdb', or ':memory:'"
            )
        if (lake := self.lake) is not None:
            return lake.path
        if name.startswith(":memory:"):
            return name if name != ":memory:" else f":memory:{self.alias}"
        return str(Path(name).absolute())

    @property
    def null_order(self) -> str:
        """Where ORDER BY puts NULL: "postgresql" or "sqlite"."""
        chosen = self.settings_dict["OPTIONS"].get("null_order") or self._source_vendor()
        if chosen not in NULL_ORDERS:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]['OPTIONS']['null_order'] is {chosen!r}. "
                f"Write one of: {', '.join(NULL_ORDERS)}"
            )
        return chosen

    def _source_vendor(self) -> str:
        """Return the order of the database this alias is a replica of, else PostgreSQL's."""
        configured = user_settings()
        if self.alias in (configured.get("REPLICATE") or {}):
            source = configured.get("SOURCE", DEFAULT_DB_ALIAS)
            engine = django_settings.DATABASES.get(source, {}).get("ENGINE", "")
            if engine.endswith(("sqlite3", "spatialite")):
                return "sqlite"
        return "postgresql"

    @property
    def savepoint_bytes(self) -> int:
        """
        How much a transaction may write and still have savepoints; 0 for none.

        A lake has none: what other hosts committed to a row that is written is
        found by its commit alone, and a replay would write over it unseen.
        """
        chosen = self.settings_dict["OPTIONS"].get("savepoint_bytes", SAVEPOINT_BYTES)
        if self.lake is not None:
            if chosen and "savepoint_bytes" in self.settings_dict["OPTIONS"]:
                raise ImproperlyConfigured(
                    f"{self.alias} is a DuckLake, which has no savepoints. "
                    f"Take 'savepoint_bytes' out of DATABASES[{self.alias!r}]['OPTIONS']."
                )
            return 0
        if type(chosen) is not int or chosen < 0:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]['OPTIONS']['savepoint_bytes'] is {chosen!r}. "
                f"Write a number of bytes, 0 for no savepoints."
            )
        return chosen

    def get_connection_params(self) -> dict[str, Any]:
        """Return what `get_new_connection` needs. Raises ImproperlyConfigured."""
        options = self.settings_dict["OPTIONS"]
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]['OPTIONS'] has no option {unknown[0]!r}. "
                f"The options are: {', '.join(OPTIONS)}; settings of DuckDB go into 'config'."
            )
        return {
            "path": self.path,
            "config": config_of(self.alias, options),
            "access": access_of(self.alias, options),
            "lake": self.lake,
            "timeout_s": float(options.get("timeout_s", ownership.TIMEOUT_S)),
            "create": self.create,
            "settings": {
                # SQLite and PostgreSQL divide integers to an integer, too.
                "integer_division": True,
                "default_null_order": NULL_ORDERS[self.null_order],
                "TimeZone": "UTC",
                # Otherwise a table that does not exist could be found among
                # the Python variables of whoever calls us.
                "python_enable_replacements": False,
            },
        }

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        """Open a connection, in this process or to the one that owns the file."""
        return ownership.connect(ownership.Place(**conn_params), self.savepoint_bytes)

    @property
    def place(self) -> ownership.Place:
        """Where the database is and how its owner opens it."""
        return ownership.Place(**self.get_connection_params())

    def create_cursor(self, name: str | None = None) -> DjangoCursor:
        """Return a cursor that takes Django's placeholders."""
        return DjangoCursor(self.connection, self.timezone or datetime.UTC)

    def check_constraints(self, table_names: Collection[str] | None = None) -> None:
        """Raise IntegrityError if a row refers to one that is not there, as `loaddata` asks."""
        references.check(self, table_names)

    def _savepoint_rollback(self, sid: str) -> None:
        try:
            with self.cursor() as cursor:
                cursor.execute(self.ops.savepoint_rollback_sql(sid))
        except (SavepointLost, StoreGone) as error:
            self.rollback_exc = error
            if self.in_atomic_block:
                self._lost = error
            raise

    def set_rollback(self, rollback: bool) -> None:
        """Set the flag by hand: then a transaction that rolls back surprises nobody."""
        super().set_rollback(rollback)
        self._lost = None

    def set_autocommit(
        self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False
    ) -> None:
        """
        Begin or end a transaction.

        Raises SavepointLost at the end of one that could not go back to a
        savepoint: `atomic()` would end it without a word, nothing written.
        """
        raised = sys.exception()
        if not autocommit:
            self._raised_before = raised
        super().set_autocommit(autocommit, force_begin_transaction_with_broken_autocommit)
        lost, before = self._lost, self._raised_before
        if autocommit:
            self._lost = self._raised_before = None
        if autocommit and lost is not None and raised is before:
            raise lost

    def _set_autocommit(self, autocommit: bool) -> None:
        with self.wrap_database_errors:
            if autocommit:
                self.connection.commit()
            self.connection.autocommit = autocommit

    def is_usable(self) -> bool:
        """Say whether the connection still reaches its database."""
        return self.connection.alive()

    def get_database_version(self) -> tuple[int, ...]:
        """Return DuckDB's version as numbers."""
        with self.temporary_connection() as cursor:
            cursor.execute("SELECT version()")
            numbers = re.findall(r"\d+", cursor.fetchone()[0])
        return tuple(int(number) for number in numbers[:3])
