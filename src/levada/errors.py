"""
The errors Levada raises, one tree.

    LevadaError
    ├── ConfigurationError (ImproperlyConfigured)   the settings cannot work
    │   ├── UnknownModel                            REPLICATE names a model that is not installed
    │   ├── UnsupportedModel                        a model or field that cannot be captured exactly
    │   ├── UnsupportedVendor                       a source database without our triggers
    │   ├── MissingExtension                        DuckDB lacks an extension the settings name
    │   └── NoReplica                               no store, or several, hold what was asked for
    ├── SourceUnavailable (OperationalError)        the source database does not answer
    ├── LogError
    │   ├── LogCorrupt                              the log file is cut short or damaged
    │   ├── LogFull (OSError)                       no space left where the log writes
    │   ├── LogUnavailable (OSError)                the log file cannot be opened or is locked
    │   ├── LogFenced                               another relay moved the producer's cursor
    │   ├── ForeignPosition (ValueError)            a position of another log
    │   └── PositionLost                            retention removed what a reader still needs
    ├── StoreError (DatabaseError)
    │   ├── StoreBusy (OperationalError)            the store did not answer in time
    │   ├── StoreGone (OperationalError)            the owner ended amid the work
    │   ├── StoreMissing (OperationalError)         there is no such file, and none is to be made
    │   ├── SavepointLost (OperationalError)        a transaction cannot go back to its savepoint
    │   ├── StoreUnreadable (OperationalError)      no DuckDB file, a newer one, or out of reach
    │   ├── StoreFull (OperationalError)            no space left where the store writes
    │   ├── PositionMoved                           somebody else applied: this writer is fenced off
    │   ├── UnfitRows (DataError)                   bulk_load() was given rows that have no place
    │   ├── ReadOnlyTable (NotSupportedError)       a write to a replica's table, or to files
    │   ├── SchemaDrift                             the source's table changed its shape
    │   └── PoisonRecord                            one record the store cannot take
    ├── InvalidMessage (ValueError)                 publish() was given what no log can carry
    ├── HandlerFailed                               a handler gave up on a record and halts
    ├── AlreadyRunning                              a second keeper for one store
    ├── NotCommitted (TransactionManagementError)   asked for what only a commit can give
    └── Timeout (TimeoutError)                      wait_for() gave up

A message has three parts: what happened, to what, and what to type next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from django.core.exceptions import ImproperlyConfigured
from django.db.transaction import TransactionManagementError
from django.db.utils import DatabaseError, DataError, NotSupportedError, OperationalError


class LevadaError(Exception):
    """Every error Levada raises on purpose."""


class ConfigurationError(LevadaError, ImproperlyConfigured):
    """The settings cannot work; `manage.py check` finds it first."""


class UnknownModel(ConfigurationError):
    """REPLICATE names a model that is not installed."""


class UnsupportedModel(ConfigurationError):
    """A model or one of its fields cannot be captured exactly."""


class UnsupportedVendor(ConfigurationError):
    """The source database is of a vendor Levada has no triggers for."""


class SourceUnavailable(LevadaError, OperationalError):
    """The source database does not answer, or has no outbox yet."""


class MissingExtension(ConfigurationError):
    """An extension that the settings name is not on this machine, or not for this DuckDB."""


class NoReplica(ConfigurationError):
    """No store holds the model, or several do, or the alias is no store's."""


class LogError(LevadaError):
    """Something about the ordered log."""


class LogCorrupt(LogError):
    """The log file is cut short, damaged or not a log."""


class LogFull(LogError, OSError):
    """No space is left where the log writes; nothing was written, the outbox keeps the rows."""


class LogUnavailable(LogError, OSError):
    """The log's file cannot be opened, written to, or stays locked."""


class LogFenced(LogError):
    """Another relay appended since this one last looked: this one must stop."""


class ForeignPosition(LogError, ValueError):
    """A position was given that belongs to another log or source."""


class PositionLost(LogError):
    """The log no longer holds the record after this position; only a rebuild helps."""


class StoreError(LevadaError, DatabaseError):
    """Something about one store."""


class StoreBusy(StoreError, OperationalError):
    """The store did not answer in time."""


class StoreGone(StoreError, OperationalError):
    """The process that had the store's file open ended, or gave it away, during a transaction."""


class StoreMissing(StoreError, OperationalError):
    """The store's file does not exist, and who asks only looks."""


class SavepointLost(StoreError, OperationalError):
    """A transaction cannot go back to one of its savepoints; all of it was rolled back."""


class StoreUnreadable(StoreError, OperationalError):
    """The store's file is not DuckDB's, damaged, of a newer version, or cannot be opened."""


class StoreFull(StoreError, OperationalError):
    """No space is left where the store writes."""


class PositionMoved(StoreError):
    """The store's position is not the expected one: another applier wrote, this one must stop."""


class UnfitRows(StoreError, DataError):
    """
    The rows given to `bulk_load()` do not fit the model; none of them was loaded.

    column: of the data or the model, where one is at fault. row: its number, from 1.
    """

    def __init__(self, message: str, column: str | None = None, row: int | None = None) -> None:
        super().__init__(message)
        self.column, self.row = column, row


class ReadOnlyTable(StoreError, NotSupportedError):
    """Somebody other than the applier writes to a replica's table, or anybody to files."""


class SchemaDrift(StoreError):
    """
    A record has a fingerprint other than the store's table: the source's table changed.

    labels: of the tables it happened to.
    """

    def __init__(self, message: str, labels: Collection[str] = ()) -> None:
        super().__init__(message)
        self.labels = frozenset(labels)


class PoisonRecord(StoreError):
    """
    Records that the store cannot take, whatever the number of tries.

    reasons: offset in the log to the reason, for each of them.
    """

    def __init__(self, message: str, reasons: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})


class InvalidMessage(LevadaError, ValueError):
    """A message's topic, key or payload is one that no log can carry."""


class HandlerFailed(LevadaError):
    """A handler failed at one record as often as it may, and its group is told to halt there."""


class NotCommitted(LevadaError, TransactionManagementError):
    """Something was asked inside an open transaction that only its commit can give."""


class AlreadyRunning(LevadaError):
    """Another process already keeps this store."""


class Timeout(LevadaError, TimeoutError):
    """A wait reached its limit; the message says how far it came."""
