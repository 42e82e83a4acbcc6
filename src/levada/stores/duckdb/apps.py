"""
The Django app `levada.stores.duckdb`, for a project that uses the backend alone.

    INSTALLED_APPS += ["levada.stores.duckdb"]

It gives every queryset the methods of `querysets`; the app `levada` does so as well.
"""

from django.apps import AppConfig

from . import querysets


class DuckDBConfig(AppConfig):
    """No models, no tables: only the queryset methods."""

    name = "levada.stores.duckdb"
    label = "levada_duckdb"
    verbose_name = "DuckDB"

    def ready(self) -> None:
        """Give every queryset the methods that DuckDB has."""
        querysets.register()
