"""DuckDB's exceptions and types under the names Django asks a DB-API module for."""

from duckdb import (
    DatabaseError,
    DataError,
    Error,
    FatalException,
    IntegrityError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
    apilevel,
    paramstyle,
    threadsafety,
)

Binary = bytes


class Invalidated(FatalException, OperationalError):
    """DuckDB gave the database up after a failure; the next connection opens it anew."""


class InterfaceError(Error):
    """Something was asked of a connection that is closed; DuckDB itself has no such class."""


__all__ = [
    "Binary",
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "Invalidated",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Warning",
    "apilevel",
    "paramstyle",
    "threadsafety",
]
