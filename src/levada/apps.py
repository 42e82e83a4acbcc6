"""The Django app `levada`."""

from typing import Any

from django.apps import AppConfig
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate


class LevadaConfig(AppConfig):
    """Holds the outbox in the source database and installs the triggers after migrate."""

    name = "levada"
    label = "levada"
    verbose_name = "Levada"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register checks and queryset methods, watch the source, hook into migrate."""
        from . import checks  # noqa: F401 (its decorators register)
        from .capture.session import watch_open_connections
        from .stores.duckdb import querysets

        connection_created.connect(_watch, dispatch_uid="levada.capture.watch")
        post_migrate.connect(_install, sender=self, dispatch_uid="levada.capture.install")
        watch_open_connections()
        querysets.register()


def _watch(connection: Any, **kwargs: Any) -> None:
    from .capture.session import watch

    watch(connection)


def _install(using: str, verbosity: int = 1, **kwargs: Any) -> None:
    """Install after migrate and flush; runs once, when every app is migrated."""
    from .capture import install
    from .conf import settings

    if using != settings.SOURCE:
        return
    changed = install(using)
    if changed and verbosity >= 1:
        print(f"  Levada captures {', '.join(changed)}.")
