"""The Django app `levada`."""

from django.apps import AppConfig


class LevadaConfig(AppConfig):
    """Holds the outbox in the source database and installs the triggers after migrate."""

    name = "levada"
    label = "levada"
    verbose_name = "Levada"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from . import checks  # noqa: F401 (its decorators register)
