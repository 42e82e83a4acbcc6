"""The relay: carries the outbox into the log, in commit order, without gaps, resumable."""

from .relay import Relay

__all__ = ["Relay"]
