"""`drain()`: everything written so far, carried through the whole channel in the calling thread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from django.db import connections, models

from .. import conf, reading
from ..changes import CHANGES, Position
from ..conf import settings
from ..errors import NotCommitted
from ..tables import concrete_model

if TYPE_CHECKING:
    from ..contracts import Log, Source
    from ..relay import Relay

MOST_ROUNDS = 1_000
"""More rounds than that mean that handlers answer each other for ever."""


@dataclass(frozen=True, slots=True)
class Drained:
    """
    What one `drain()` carried.

    relayed: records that went from the outbox into the log. applied: records
    by store. handled: records that each consumer group passed.
    """

    relayed: int = 0
    applied: dict[str, int] = field(default_factory=dict)
    handled: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Marks:
    """Where each topic of one log ended at one moment."""

    epoch: str
    topics: dict[str, Position]


class Clock:
    """A clock that jumps over the pauses between retries."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Channel:
    """
    The movers of one test: a relay, an applier a store, a runner a group.

    inside: everything happens in the transaction of a TestCase, through
    Django's connections of this thread, and is undone with it; the log is in
    memory. Else what is committed is carried by way of the project's log.
    """

    def __init__(self, *, inside: bool) -> None:
        from ..log import open_log
        from ..log.memory import MemoryLog
        from ..models import GroupPosition
        from ..outbox.sources import open_source
        from ..relay import Relay

        self.inside = inside
        self.log: Log = MemoryLog() if inside else open_log()
        self.source: Source = open_source(inside=inside)
        self.relay: Relay = Relay(self.source, self.log)
        self.clock = Clock()
        self._appliers: dict[str, Any] = {}
        self._runners: dict[str, Any] = {}
        if inside:  # the test's log is new: what was handled before it began is no concern of it
            GroupPosition.objects.using(settings.SOURCE).all().delete()

    def aliases(self) -> list[str]:
        """Return the stores this test can fill: in a TestCase those it lists in `databases`."""
        return [
            alias
            for alias in conf.store_aliases()
            if not self.inside or connections[alias].in_atomic_block
        ]

    def store(self, alias: str) -> Any:
        """Return the store `alias`, inside the test's transaction where there is one."""
        from ..stores import open_store

        return open_store(alias, inside=self.inside)

    def relay_all(self) -> int:
        """Bring the outbox into the log; return how many records."""
        total = 0
        while count := self.relay.step():
            total += count
        return total

    def apply_all(self, alias: str) -> int:
        """Bring `alias` to the end of the log; return how many records."""
        applier = self._appliers.get(alias) or self._open_applier(alias)
        total = 0
        while applier.store.position() != self.log.end(CHANGES):
            total += applier.step()
        return total

    def _open_applier(self, alias: str) -> Any:
        """Make the applier of `alias`, and first the store itself if it follows another log."""
        from ..apply import Applier, rebuild

        store = self.store(alias)
        position = store.position()
        if alias in _unknown or position is None or position.epoch != self.log.epoch:
            rebuild(alias, store=store, log=self.log, source=self.source, pump=self.relay.step)
            _unknown.discard(alias)
        self._appliers[alias] = Applier(store, self.log, self.source)
        return self._appliers[alias]

    def handle_all(self, group: str, *, raise_errors: bool) -> int:
        """Have the handlers of `group` take what is in the log; return how many records."""
        runner = self._runners.get(group) or self._open_runner(group)
        runner.on_error = "raise" if raise_errors else "retry"
        total = 0
        while True:
            if count := runner.step():
                total += count
            elif due_in_s := runner.due_in_s():
                self.clock.now += due_in_s
            elif due_in_s is None:
                break
        runner.save()
        return total

    def _open_runner(self, group: str) -> Any:
        """Make the runner of `group`; one that never ran begins where the test did."""
        from ..apply import handlers
        from ..models import GroupPosition

        runner = handlers.HandlerRunner(group, self.log, clock=self.clock)
        for topic in {each.topic for each in runner.subscriptions}:
            known = GroupPosition.objects.using(settings.SOURCE).filter(group=group, topic=topic)
            start = self._start_of(topic)
            if start and not known.exists():
                handlers.move(group, start, self.log)
        self._runners[group] = runner
        return runner

    def _start_of(self, topic: str) -> Position | None:
        """Return where `topic` was when the test began; None where nobody noted it."""
        if self.inside:
            return self.log.beginning(topic)
        if _marks is None or _marks.epoch != self.log.epoch:
            return None
        return _marks.topics.get(topic) or self.log.beginning(topic)

    def close(self) -> None:
        """Close connections that are not Django's: a test database could not be dropped."""
        for applier in self._appliers.values():
            applier.store.close()
        self._appliers.clear()
        self._runners.clear()
        self.source.close()


_inside: WeakKeyDictionary[Any, Channel] = WeakKeyDictionary()
"""The channel of each TestCase transaction that is open."""
_marks: Marks | None = None
"""Where the topics ended when the test began."""
_unknown: set[str] = set()
"""Stores that may hold what an earlier test has left."""


def channel() -> Channel:
    """
    Return the channel of the running test.

    Raises NotCommitted inside a transaction of the test's own.
    """
    alias = settings.SOURCE
    if reading.in_transaction(alias):
        raise NotCommitted(
            f"drain() was called inside a transaction on {alias!r}, whose writes are not committed "
            f"yet. Call it after the atomic block."
        )
    blocks = connections[alias].atomic_blocks
    if not blocks:
        return Channel(inside=False)
    if blocks[-1] not in _inside:
        _inside[blocks[-1]] = Channel(inside=True)
    return _inside[blocks[-1]]


def drain(
    *,
    stores: Iterable[str] | None = None,
    groups: Iterable[str] | None = None,
    raise_errors: bool = True,
) -> Drained:
    """
    Carry everything written so far to the stores and handlers; return how much it was.

    stores, groups: only these; None for all, () for none. What handlers write
    is carried as well, until nothing is left.
    raise_errors: a handler's exception ends the drain and the test; False
        tries again without pauses until the record is a dead letter.
    Inside a TestCase it works in the test's transaction, and fills the stores
    that the test lists in `databases`. Raises NotCommitted inside any other
    transaction, whose writes are not there to be carried before they commit.
    """
    from ..apply.handlers import discover

    own = channel()
    aliases = tuple(own.aliases() if stores is None else stores)
    names = tuple(discover() if groups is None else groups)
    applied, handled = dict.fromkeys(aliases, 0), dict.fromkeys(names, 0)
    try:
        relayed = count = own.relay_all()
        for _ in range(MOST_ROUNDS):
            for alias in aliases:
                applied[alias] += own.apply_all(alias)
            for group in names:
                handled[group] += own.handle_all(group, raise_errors=raise_errors)
            count = own.relay_all()
            relayed += count
            if not count:
                return Drained(relayed, applied, handled)
    finally:
        if not own.inside:
            own.close()
    raise RecursionError(
        f"drain() went {MOST_ROUNDS} rounds and there is always more: a handler writes what it "
        f"handles. Say what to drain: drain(groups=[…])"
    )


def assert_replicated(*wanted: type[models.Model], using: str | None = None) -> None:
    """
    Fail, naming each differing row and column, unless the stores hold what the source holds.

    wanted: models, by default all that are replicated. using: one store, by
    default every one that this test can fill. Drains first.
    """
    from ..apply import verify

    labels = [concrete_model(model)._meta.label for model in wanted]
    drain(groups=())
    own = channel()
    try:
        for alias in [using] if using else own.aliases():
            held = conf.replicated_in(alias)
            chosen = [label for label in labels if using or label in held] if labels else list(held)
            if not chosen:
                continue
            outcome = verify(alias, chosen, store=own.store(alias), log=own.log, source=own.source)
            assert outcome.equal, f"{alias} differs from {own.source.alias}:\n{outcome.to_json()}"
    finally:
        if not own.inside:
            own.close()


def begin() -> None:
    """
    Begin a test: what earlier ones left reaches neither its handlers nor its stores.

    Until `end()`, `levada.wait_for()` drains instead of waiting for a keeper.
    """
    global _marks
    reading.through = lambda: reading.Through(channel, lambda: drain(groups=()))
    if connections[settings.SOURCE].in_atomic_block:
        return
    _unknown.update(conf.store_aliases())
    own = channel()
    try:
        own.relay_all()
        _marks = Marks(own.log.epoch, {topic: own.log.end(topic) for topic in own.log.topics()})
    finally:
        own.close()
    from ..models import GroupPosition

    GroupPosition.objects.using(settings.SOURCE).all().delete()


def end() -> None:
    """End what `begin()` has begun."""
    reading.through = None
    reading.close_stores()
