"""Where Django looks for the app's models."""

from .outbox.models import DeadLetter, Outbox, ReplicatedTable

__all__ = ["DeadLetter", "Outbox", "ReplicatedTable"]
