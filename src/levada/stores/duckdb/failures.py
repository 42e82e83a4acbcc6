"""
DuckDB's failures in Django's classes, with what to do next.

DuckDB's own classes fit PEP 249 for the most part; `_CLASSES` and `_DATA` tell
the rest. The class of the raised error is one that Django maps to its own of
the same name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from ...errors import StoreFull, StoreUnreadable
from . import dbapi

_FULL = ("no space left on device", "disk quota exceeded", "file too large")
_UNREADABLE = (
    "not a valid duckdb database file",
    "trying to read a database file with",  # … storage version number 1000, but we can only
    "corrupt database file",
    "corrupt wal file",
    "failure while replaying wal",
    "could not read enough bytes from file",
)
_UNREACHABLE = (
    "no such file or directory",
    "permission denied",
    "read-only file system",
    "is a directory",
    "not a directory",
    "too many open files",
)
"""Parts of DuckDB's messages: it has no classes or codes of its own for these."""

_DATA = (
    "division by zero",
    "could not parse string",
    "malformed json",
    "missing ): ",
    "missing ]: ",
    "invalid escape sequence",
    "no argument for repetition operator",
    "bad repetition operator",
    "invalid perl operator",
    "invalid character class",
    "invalid utf8",
    "invalid input for hex digit",
    "unknown timezone",
)
"""Parts of messages about values, which DuckDB raises by the classes of wrong SQL."""

_CLASSES: dict[type[duckdb.Error], type[duckdb.Error]] = {
    duckdb.InterruptException: duckdb.OperationalError,
    duckdb.PermissionException: duckdb.ProgrammingError,
    duckdb.DependencyException: duckdb.InternalError,
    duckdb.SequenceException: duckdb.DataError,
    duckdb.FatalException: dbapi.Invalidated,
    # What DuckDB's C++ raises without a class: a missing extension, a damaged block.
    duckdb.Error: duckdb.OperationalError,
    duckdb.DatabaseError: duckdb.OperationalError,
}
"""Classes for those that Django would map to a bare DatabaseError; psycopg chooses alike."""

_STEPS: tuple[tuple[str, str], ...] = (
    ("configuration has been locked", "Set it in OPTIONS['config'] of this database."),
    (
        "disabled by configuration",
        "Name the folder, file or address in OPTIONS['external'] of this database.",
    ),
    (
        "disabled through configuration",
        "Name the extension in OPTIONS['extensions'] of this database.",
    ),
    (
        "extension to be loaded",
        "Name the extension in OPTIONS['extensions'] of this database.",
    ),
    (
        "requires the extension",
        "Name the extension in OPTIONS['extensions'] of this database.",
    ),
    (
        "exceeded maximum execution time",
        "Ask for less, or raise max_execution_time in OPTIONS['config'].",
    ),
    ("conflict on ", "Another transaction changed the same rows. Run the transaction again."),
    ("write-write conflict", "Another transaction changed the same rows. Run it again."),
    ("transaction conflict", "Another transaction changed the same rows. Run it again."),
)
"""Part of DuckDB's message, in lower case, and the next step to name."""


@contextmanager
def named(path: str) -> Iterator[None]:
    """Raise a better error in place of DuckDB's, if there is one."""
    try:
        yield
    except duckdb.Error as error:
        better = rename(error, path)
        if better is error:
            raise
        raise better from error
    except (OverflowError, UnicodeError) as error:
        raise duckdb.DataError(str(error)) from error
    except OSError as error:
        raise unreachable(path, error) from error


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
    if _is_own_file(text, path) and any(sign in text for sign in _UNREACHABLE):
        return unreachable(path, error)
    if isinstance(error, duckdb.OutOfMemoryException):
        return type(error)(
            f"The statement needs more memory than {path} may use. Ask for less at once, or raise "
            f"memory_limit (and max_temp_directory_size) in OPTIONS['config']. DuckDB says: {error}"
        )
    kind = _kind(error, text)
    step = next((step for sign, step in _STEPS if sign in text), "")
    if step:
        return kind(f"{error}\n{step}")
    return error if kind is type(error) else kind(str(error))


def unreachable(path: str, error: Exception) -> StoreUnreadable:
    """Return the error for a file that cannot be opened, or whose folder is gone."""
    return StoreUnreadable(
        f"{path} cannot be opened or written: {error}. See that its folder exists and that this "
        f"user may write there (ls -ld, df), then try again."
    )


def _is_own_file(text: str, path: str) -> bool:
    """Say whether DuckDB's message is about the database's own file, WAL or spill folder."""
    return path.lower() in text


def _kind(error: Exception, text: str) -> type[Exception]:
    """Return the class that Django should see."""
    wrong_sql = (duckdb.InvalidInputException, duckdb.NotImplementedException)
    if isinstance(error, wrong_sql) and any(sign in text for sign in _DATA):
        return duckdb.DataError
    if "unable to transform python value" in text:
        return duckdb.ProgrammingError
    return _CLASSES.get(type(error), type(error))  # type: ignore[arg-type]
