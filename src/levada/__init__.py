"""Levada: one commit, every store. Importing it needs Django alone."""

__version__ = "0.1.0"

__all__ = ["__version__"]
