"""Rows that somebody will read later: a few in memory, many in a temporary file."""

from __future__ import annotations

import pickle
import tempfile
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO, Any

Row = tuple[Any, ...]

MEMORY_ROWS = 20_000
"""Up to so many rows stay in memory: a few MB, and quicker than a file."""

FILE_ROWS = 2_048
"""Rows read, written and held at once beyond that: DuckDB's own vector."""


class KeptRows(Iterator[Row]):
    """
    The rows that `read(count)` gives until it gives less than `count`; read at once, kept in order.

    Raises what `read` raises, and OSError where no temporary file can be written.
    """

    def __init__(self, read: Callable[[int], list[Row]]) -> None:
        rows = read(MEMORY_ROWS)
        self._rows = iter(rows)
        self._file: IO[bytes] | None = None
        if len(rows) == MEMORY_ROWS:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed when we are collected
            weakref.finalize(self, self._file.close)
            self._write(read)

    def _write(self, read: Callable[[int], list[Row]]) -> None:
        assert self._file is not None
        while rows := read(FILE_ROWS):
            pickle.dump(rows, self._file, protocol=5)
            if len(rows) < FILE_ROWS:
                break
        self._file.seek(0)

    def __next__(self) -> Row:
        while True:
            for row in self._rows:
                return row
            if self._file is None:
                raise StopIteration
            try:
                self._rows = iter(pickle.load(self._file))
            except EOFError:
                self._file.close()
                self._file = None

    def fetchmany(self, limit: int | None) -> list[Row]:
        """Return the next rows, all for None."""
        return list(self) if limit is None else list(islice(self, limit))
