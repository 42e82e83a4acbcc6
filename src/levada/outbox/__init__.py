"""The outbox: the table that commits with your data, and how the relay reads it."""

from .publishing import publish

__all__ = ["publish"]
