"""A DuckDB database of a test's own, under an alias of Django's."""

import uuid
from contextlib import contextmanager, suppress

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections

from levada.stores.duckdb import ownership


@contextmanager
def alias_with(options=None, *, name=None, alias="duck"):
    """Configure `alias`, in memory unless `name` is a path; gives its DatabaseWrapper."""
    name = str(name or f":memory:{uuid.uuid4().hex}")
    configured = {"ENGINE": "levada.stores.duckdb", "NAME": name, "OPTIONS": options or {}}
    databases = connections.configure_settings({DEFAULT_DB_ALIAS: {}, alias: configured})
    connections.databases[alias] = databases[alias]
    connection = connections[alias]
    try:
        yield connection
    finally:
        connection.close()
        with suppress(ImproperlyConfigured):
            ownership.release(connection.path)
        del connections[alias], connections.databases[alias]
