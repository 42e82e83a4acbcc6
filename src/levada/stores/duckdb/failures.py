"""DuckDB's failures that a person can do something about, by Levada's names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from ...errors import StoreFull, StoreUnreadable

_FULL = ("no space left on device", "disk quota exceeded", "file too large")
_UNREADABLE = (
    "not a valid duckdb database file",
    "trying to read a database file with",  # … storage version number 1000, but we can only
    "corrupt database file",
    "could not read enough bytes from file",
)
"""Parts of DuckDB's messages: it has no classes or codes of its own for these."""


@contextmanager
def named(path: str) -> Iterator[None]:
    """Raise StoreFull or StoreUnreadable in place of DuckDB's error where it means that."""
    try:
        yield
    except duckdb.Error as error:
        better = rename(error, path)
        if better is error:
            raise
        raise better from error
    except (OverflowError, UnicodeError) as error:
        raise duckdb.DataError(str(error)) from error


def rename(error: Exception, path: str) -> Exception:
    """Return the error to raise for DuckDB's `error` on the database at `path`."""
    text = str(error).lower()
    if any(sign in text for sign in _FULL):
        return StoreFull(
            f"No space is left where {path} is written; the transaction was rolled back. "
            f"Free some space there, then try again. DuckDB says: {error}"
        )
    if any(sign in text for sign in _UNREADABLE):
        return StoreUnreadable(
            f"{path} is not a database this DuckDB ({duckdb.__version__}) can read: damaged, "
            f"not DuckDB's, or written by a newer version. Upgrade duckdb, or delete the file "
            f"and run: manage.py levada rebuild. DuckDB says: {error}"
        )
    if isinstance(error, duckdb.InterruptException):
        return duckdb.OperationalError(str(error))
    return error
