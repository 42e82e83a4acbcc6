"""Stores: where changes land."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings as django_settings

from levada.errors import ConfigurationError

if TYPE_CHECKING:
    from .duckdb.store import DuckDBStore

ENGINES = {"levada.stores.duckdb": "levada.stores.duckdb.store.DuckDBStore"}
"""Database engines that are stores, and what applies changes to each."""


def open_store(alias: str, *, inside: bool = False, create: bool = True) -> DuckDBStore:
    """
    Open the store behind the database `alias`, with a connection of its own.

    inside: work through Django's connection of the calling thread instead,
    inside the transaction that is open there, which is what a TestCase needs.
    create: make the file if there is none. Without, such a store says that it
    was never filled, and raises StoreMissing where more is asked of it.
    Raises ConfigurationError if `alias` is no database or its engine is no store.
    """
    from django.utils.module_loading import import_string

    database = django_settings.DATABASES.get(alias)
    if database is None:
        known = ", ".join(sorted(django_settings.DATABASES))
        raise ConfigurationError(
            f"{alias!r} is no database of this project. "
            f"DATABASES has: {known}. Write DATABASES[{alias!r}] or correct the name."
        )
    engine = database.get("ENGINE")
    if engine not in ENGINES:
        raise ConfigurationError(
            f"The database {alias!r} has the engine {engine!r}, which is no store. "
            f"Stores are: {', '.join(ENGINES)}."
        )
    store_class: type[DuckDBStore] = import_string(ENGINES[engine])
    if inside:
        from .duckdb.inside import InsideConnection

        return store_class(alias, InsideConnection(alias))
    return store_class(alias, create=create)
