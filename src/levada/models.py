"""Where Django looks for the app's models."""

from .outbox.models import DeadLetter, Outbox, RelayCursor, ReplicatedTable

__all__ = ["DeadLetter", "Outbox", "RelayCursor", "ReplicatedTable"]
