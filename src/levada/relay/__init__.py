"""Relay: outbox to log, in commit order, without gaps."""
