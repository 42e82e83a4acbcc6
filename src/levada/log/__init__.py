"""The ordered log: one contract, several engines."""
