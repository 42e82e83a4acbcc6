"""How a command says that it refuses."""

from __future__ import annotations


class Failure(Exception):
    """Ends a command with a message in three parts and an exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status
