"""
Reading what was written: where the source stands, how to wait for a store, and its replica.

    order.save()
    here = levada.position()                       # what is committed now
    levada.wait_for("analytics", here, timeout_s=2)
    levada.replica(Order).filter(country="PT").count()
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

from . import conf
from .changes import CHANGES, Position, SourcePosition
from .conf import settings
from .errors import ForeignPosition, NoReplica, NotCommitted, Timeout
from .tables import concrete_model

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet

    from .contracts import Log, Source, Store

__all__ = ["aposition", "await_for", "position", "replica", "wait_for"]

ModelT = TypeVar("ModelT", bound="Model")

NEWEST = {
    "sqlite": (
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'levada_outbox'), 0)"
    ),
    "postgresql": "SELECT pg_current_snapshot()::text",
}
"""What is committed now, asked on the caller's own connection: a source would open another."""

_opened = threading.local()


class Through(NamedTuple):
    """Where waits go in a test: `channel()` has log, source and stores, `drain()` moves them on."""

    channel: Callable[[], Any]
    drain: Callable[[], Any]


through: Callable[[], Through] | None = None
"""Set by `levada.testing`; None where a keeper runs."""


def position(using: str | None = None) -> SourcePosition:
    """
    Return what the source database has committed now; call it after a commit.

    using: the alias, by default LEVADA["SOURCE"]. Raises NotCommitted inside
    a transaction, whose writes no position can speak of before they commit.
    """
    alias = using or settings.SOURCE
    if in_transaction(alias):
        raise NotCommitted(
            f"position() was called inside a transaction on {alias!r}, whose writes are not "
            f"committed yet. Call it after the atomic block, or in transaction.on_commit()."
        )
    connection = connections[alias]
    if connection.vendor not in NEWEST or connection.in_atomic_block:
        from .outbox.sources import open_source

        # Inside a TestCase the one transaction never commits; it is all there is to see.
        return open_source(alias, inside=True).position()
    with connection.cursor() as cursor:
        cursor.execute(NEWEST[connection.vendor])
        return SourcePosition(alias, str(cursor.fetchone()[0]))


def wait_for(alias: str, position: SourcePosition | Position, timeout_s: float = 10.0) -> Position:
    """
    Wait until the store `alias` shows everything up to `position`; return the store's position.

    position: from `levada.position()`, or a position of the log.
    Raises Timeout, saying how far it came; ForeignPosition for a position of
    another source or log; NoReplica if `alias` is no store; NotCommitted
    inside a transaction on the store, whose view stays as it is.
    """
    wait = Wait(alias, position, timeout_s)
    try:
        while (reached := wait.probe()) is None:
            wait.check_time()
            wait.pause()
        return reached
    finally:
        wait.close()


async def aposition(using: str | None = None) -> SourcePosition:
    """Like `position()`, from async code, without blocking the event loop."""
    return await sync_to_async(position)(using)


async def await_for(
    alias: str, position: SourcePosition | Position, timeout_s: float = 10.0
) -> Position:
    """Like `wait_for()`, from async code; only short looks leave the event loop."""
    wait = await sync_to_async(Wait)(alias, position, timeout_s)
    probe = sync_to_async(wait.probe)
    try:
        while (reached := await probe()) is None:
            wait.check_time()
            if wait.through:
                await sync_to_async(wait.pause)()
            else:
                await asyncio.sleep(wait.pause_s())
        return reached
    finally:
        await sync_to_async(wait.close)()


def replica(model: type[ModelT], using: str | None = None) -> QuerySet[ModelT]:
    """
    Return a queryset of `model` in the store that replicates it.

    using: the store's alias where several hold the model. Fields that are
    excluded from replication are deferred. Raises NoReplica if no store or
    several hold it, or not that one.
    """
    concrete = concrete_model(model)
    label = concrete._meta.label
    replicated = conf.replicated()
    alias = _store_of(label, replicated[label].stores if label in replicated else (), using)
    queryset = model._default_manager.using(alias)
    missing = [
        name
        for each in (concrete, *model._meta.get_parent_list())
        if each._meta.label in replicated
        for name in replicated[each._meta.label].exclude
    ]
    return queryset.defer(*missing) if missing else queryset


def _store_of(label: str, stores: tuple[str, ...], using: str | None) -> str:
    if not stores:
        raise NoReplica(
            f"no store replicates {label}. Name it: LEVADA['REPLICATE'] = "
            f"{{'analytics': [{label!r}]}}, then run: manage.py migrate"
        )
    if using is not None and using not in stores:
        raise NoReplica(
            f"the store {using!r} does not replicate {label}; these do: {', '.join(stores)}. "
            f"Name it in LEVADA['REPLICATE'][{using!r}] or ask one of them."
        )
    if using is None and len(stores) > 1:
        raise NoReplica(
            f"{label} is replicated in {', '.join(stores)}. "
            f"Say which: replica({label.rpartition('.')[2]}, using={stores[0]!r})"
        )
    return using or stores[0]


def in_transaction(alias: str) -> bool:
    """Say whether a transaction is open on `alias` here, apart from the one a TestCase opens."""
    connection = connections[alias]
    blocks = getattr(connection, "atomic_blocks", [])
    if blocks:
        return not all(block._from_testcase for block in blocks)
    return bool(connection.in_atomic_block)


class Wait:
    """
    One wait for one store: first for the relay, then for the store itself.

    A position of the log needs no waiting for the relay. Making one raises
    what `wait_for()` raises before it waits.
    """

    def __init__(self, alias: str, wanted: SourcePosition | Position, timeout_s: float) -> None:
        if alias not in conf.store_aliases():
            raise NoReplica(
                f"{alias!r} is no store of LEVADA['REPLICATE']; these are: "
                f"{', '.join(conf.store_aliases()) or 'none'}."
            )
        if in_transaction(alias):
            raise NotCommitted(
                f"wait_for({alias!r}) was called inside a transaction on {alias!r}, which keeps "
                f"seeing what it saw at its beginning. Wait before the atomic block."
            )
        self.alias = alias
        self.wanted = wanted
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.through = through() if through else None
        self.log: Log = _open_log(self.through)
        self.source: Source | None = None
        self.target: Position | None = None
        self._reached: Position | None = None
        self._check()

    def _check(self) -> None:
        wanted = self.wanted
        if isinstance(wanted, Position):
            self.log.end(CHANGES).lag(wanted)  # raises ForeignPosition
            self.target = wanted
            return
        if wanted.source != settings.SOURCE:
            raise ForeignPosition(
                f"the position was taken from {wanted.source!r}, but changes are captured on "
                f"{settings.SOURCE!r}. Take it there: levada.position({settings.SOURCE!r})"
            )
        from .outbox.sources import open_source

        inside = connections[wanted.source].in_atomic_block
        self.source = open_source(wanted.source, inside=inside)

    def probe(self) -> Position | None:
        """Look once; return the store's position if it covers what is wanted."""
        if self.target is None:
            self.target = self._relayed()
        if self.target is None:
            return None
        self._reached = _store(self.alias).position()
        if self._reached is None or not self._reached.covers(self.target):
            return None
        return self._reached

    def _relayed(self) -> Position | None:
        """Return the log's end if the log holds all of the source position, else None."""
        assert self.source is not None
        assert isinstance(self.wanted, SourcePosition)
        cursor = self.log.cursor(self.wanted.source)
        if not self.source.covers(cursor, self.wanted):
            return None
        return self.log.end(CHANGES)

    def check_time(self) -> None:
        """Raise Timeout once the time is over, saying what was reached."""
        if time.monotonic() < self.deadline:
            return
        raise Timeout(
            f"{self.alias} did not reach the position within {self.timeout_s:g} s: "
            f"{self._how_far()}. Is a keeper running? See: manage.py levada status {self.alias}"
        )

    def _how_far(self) -> str:
        if self.target is None:
            assert isinstance(self.wanted, SourcePosition)
            return (
                f"the relay has come to {self.log.cursor(self.wanted.source)} "
                f"of {self.wanted.source!r}, {self.wanted.cursor} was asked for"
            )
        if self._reached is None:
            return f"it was never filled, and the log is at {self.target.offset}"
        return (
            f"it is {self._reached.lag(self.target)} changes behind "
            f"(position {self._reached.offset} of {self.target.offset})"
        )

    def pause_s(self) -> float:
        """Return how long to wait before the next look."""
        return max(0.0, min(float(settings.POLL_S), self.deadline - time.monotonic()))

    def pause(self) -> None:
        """Wait for the next look; wakes up early when the log gets a record."""
        if self.through:
            self.through.drain()
        elif self.target is None:
            self.log.wait(self.log.end(CHANGES), self.pause_s())
        else:
            time.sleep(self.pause_s())

    def close(self) -> None:
        """Release what the wait has opened."""
        if self.source is not None:
            self.source.close()


def _open_log(through: Through | None) -> Log:
    if through:
        log: Log = through.channel().log
        return log
    from .log import open_log

    return open_log()


def _store(alias: str) -> Store:
    """Return this thread's store of `alias`: opening one costs a connection."""
    from .stores import open_store

    if connections[alias].in_atomic_block:
        return open_store(alias, inside=True)
    stores: dict[str, Any] = _opened.__dict__.setdefault("stores", {})
    if alias not in stores:
        stores[alias] = open_store(alias, create=False)
    store: Store = stores[alias]
    return store


def close_stores() -> None:
    """Close the stores that this thread has opened for waiting."""
    for store in _opened.__dict__.pop("stores", {}).values():
        store.close()
