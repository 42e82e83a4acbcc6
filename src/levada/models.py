"""Where Django looks for the app's models."""

from .outbox.models import (
    DeadLetter,
    GroupPosition,
    Outbox,
    RelayCursor,
    ReplicatedTable,
    VerifiedTable,
)

__all__ = [
    "DeadLetter",
    "GroupPosition",
    "Outbox",
    "RelayCursor",
    "ReplicatedTable",
    "VerifiedTable",
]
