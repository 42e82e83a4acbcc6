"""Keeper: runs relay, appliers and handlers in one process."""
