"""Capture: triggers that write every row change into the outbox, in its own transaction."""
