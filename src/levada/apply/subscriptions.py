"""
Subscriptions: which function of the project handles which topic, for which consumer group.

    @levada.subscribe("order-placed", group="mails")
    def send_receipt(change: levada.Change) -> None: ...

    @levada.subscribe("changes:shop.Order", group="search", batch=True)
    async def index(changes: list[levada.Change]) -> None: ...

They live in `<app>/handlers.py`, which `discover()` imports when a keeper
starts. `levada.apply.handlers` runs them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.utils.module_loading import autodiscover_modules

from ..changes import CHANGES, Change
from ..errors import ConfigurationError, UnknownModel

Handler = TypeVar("Handler", bound=Callable[..., Any])
Start = Literal["beginning", "end"]
OnPoison = Literal["dead_letter", "halt"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """
    One handler and what it is called with.

    topic: the log's topic. label: the model whose row changes it gets, empty
    for every record of the topic. batch_rows: 1 for a handler that gets one
    `Change`, else the most changes of one list. retries, on_poison: None for
    what the settings say. backoff_s: the pause after the first failure; it
    doubles with each further one. start: where a new group begins.
    """

    handler: Callable[..., Any]
    group: str
    topic: str
    label: str
    batch: bool
    batch_rows: int
    retries: int | None
    backoff_s: float
    on_poison: OnPoison | None
    start: Start

    @property
    def name(self) -> str:
        """The handler's dotted path."""
        return f"{self.handler.__module__}.{self.handler.__qualname__}"

    @property
    def selector(self) -> str:
        """What was subscribed to, as `subscribe()` was told."""
        return f"{self.topic}:{self.label}" if self.label else self.topic

    def takes(self, label: str) -> bool:
        """Say whether a record of the topic with this model label is for this handler."""
        return self.label in ("", label)

    def call(self, changes: Sequence[Change]) -> None:
        """
        Call the handler with `changes`, with a single one unless it takes batches.

        An async handler runs in an event loop of its own; its ORM calls come
        back to this thread, so they join the transaction that is open here.
        """
        call = self.handler
        if inspect.iscoroutinefunction(call):
            call = async_to_sync(call)
        call(list(changes) if self.batch else changes[0])


class Registry:
    """The subscriptions of one process, by group. Registering is idempotent by dotted path."""

    def __init__(self) -> None:
        self._groups: dict[str, list[Subscription]] = {}

    def add(self, new: Subscription) -> None:
        """Register `new`. Raises ConfigurationError if its group already has such a handler."""
        kept = [
            old
            for old in self._groups.get(new.group, ())
            if old.name != new.name or old.selector != new.selector
        ]
        for old in kept:
            if old.topic == new.topic and (old.takes(new.label) or new.takes(old.label)):
                raise ConfigurationError(
                    f"group {new.group!r} would get {new.selector!r} twice: from {old.name} and "
                    f"from {new.name}. A group handles each record once; give one of them a group "
                    f"of its own."
                )
        self._groups[new.group] = [*kept, new]

    def remove(self, handler: Callable[..., Any]) -> None:
        """Forget every subscription of `handler`."""
        for group, subscriptions in list(self._groups.items()):
            kept = [each for each in subscriptions if each.handler is not handler]
            if kept:
                self._groups[group] = kept
            else:
                del self._groups[group]

    def groups(self) -> dict[str, tuple[Subscription, ...]]:
        """Return the subscriptions by group, groups sorted."""
        return {group: tuple(self._groups[group]) for group in sorted(self._groups)}

    def of(self, group: str) -> tuple[Subscription, ...]:
        """Return the subscriptions of `group`. Raises ConfigurationError if it has none."""
        if group not in self._groups:
            known = ", ".join(sorted(self._groups)) or "none"
            raise ConfigurationError(
                f"no handler subscribes for group {group!r}; the groups are: {known}. "
                f"Handlers belong in <app>/handlers.py of an app in INSTALLED_APPS."
            )
        return tuple(self._groups[group])


registry = Registry()


def subscribe(
    topic: str,
    *,
    group: str,
    batch: bool = False,
    batch_rows: int = 1_000,
    retries: int | None = None,
    backoff_s: float = 1.0,
    on_poison: OnPoison | None = None,
    start: Start = "beginning",
) -> Callable[[Handler], Handler]:
    """
    Have the decorated function called with each record of `topic`, after its commit.

    topic: a topic of `levada.publish()`; `changes:app.Model` for the row
        changes of one replicated model; `changes` for those of all.
    group: the name its position is kept under. Handlers of one group share
        the position of a topic, and each record goes to one of them.
    batch: call with a list of up to `batch_rows` changes instead of one.
    retries: how often a failing record is tried; None: LEVADA["RETRIES"].
    backoff_s: the pause after the first failure, doubled with each further
        one up to five minutes.
    on_poison: what happens after the last try; None: LEVADA["ON_POISON"].
    start: where a group that never ran begins in the log: at the oldest
        record kept, or only with what comes after its first start.

    The handler runs in a transaction of the source database that also moves
    the group's position: what it writes there happens exactly once, and an
    exception undoes it. Anything else it does happens at least once.
    Raises ConfigurationError for arguments that cannot work.
    """
    log_topic, label = _parse(topic)
    _check(group, batch_rows, retries, backoff_s, on_poison, start)

    def register(handler: Handler) -> Handler:
        if not callable(handler) or not hasattr(handler, "__qualname__"):
            raise ConfigurationError(
                f"{handler!r} cannot subscribe to {topic!r}: it is no function. "
                f"Decorate a function: @levada.subscribe({topic!r}, group={group!r})"
            )
        registry.add(
            Subscription(
                handler=handler,
                group=group,
                topic=log_topic,
                label=label,
                batch=batch,
                batch_rows=batch_rows if batch else 1,
                retries=retries,
                backoff_s=backoff_s,
                on_poison=on_poison,
                start=start,
            )
        )
        return handler

    return register


def discover() -> dict[str, tuple[Subscription, ...]]:
    """
    Import `handlers.py` of every installed app and return the subscriptions by group.

    Raises UnknownModel if one names a model whose changes are not captured.
    """
    autodiscover_modules("handlers")
    groups = registry.groups()
    for subscriptions in groups.values():
        check_captured(subscriptions)
    return groups


def check_captured(subscriptions: Iterable[Subscription]) -> None:
    """Raise UnknownModel if a subscription names a model that REPLICATE does not."""
    from ..conf import replicated

    labels = replicated()
    for each in subscriptions:
        if each.label and each.label not in labels:
            raise UnknownModel(
                f"{each.name} subscribes to {each.selector!r}, but the changes of {each.label} "
                f"are not captured. Name it in LEVADA['REPLICATE'], written as one of: "
                f"{', '.join(labels)}"
            )


def _parse(topic: str) -> tuple[str, str]:
    """Split what `subscribe()` was told into the log's topic and a model's label."""
    if not isinstance(topic, str) or not topic:
        raise ConfigurationError(
            f"{topic!r} is no topic. Write @levada.subscribe('topic', group='…') or "
            f"@levada.subscribe('changes:app.Model', group='…')"
        )
    log_topic, colon, label = topic.partition(":")
    if not colon:
        return topic, ""
    if log_topic != CHANGES or label.count(".") != 1:
        raise ConfigurationError(
            f"{topic!r} is no topic: only 'changes:app.Model' has a colon. "
            f"Name the model as app_label.Model."
        )
    return log_topic, label


def _check(
    group: str,
    batch_rows: int,
    retries: int | None,
    backoff_s: float,
    on_poison: str | None,
    start: str,
) -> None:
    wrong = ""
    if not isinstance(group, str) or not group or len(group) > 200:
        wrong = f"group={group!r}, but must be a name of 1 to 200 characters"
    elif group in django_settings.DATABASES:
        wrong = f"group={group!r}, the name of a database; choose another one"
    elif batch_rows < 1:
        wrong = f"batch_rows={batch_rows!r}, but must be at least 1"
    elif retries is not None and retries < 1:
        wrong = f"retries={retries!r}, but must be at least 1, the first try included"
    elif backoff_s < 0:
        wrong = f"backoff_s={backoff_s!r}, but must be seconds, at least 0"
    elif on_poison not in (None, "dead_letter", "halt"):
        wrong = f"on_poison={on_poison!r}, but must be 'dead_letter' or 'halt'"
    elif start not in ("beginning", "end"):
        wrong = f"start={start!r}, but must be 'beginning' or 'end'"
    if wrong:
        raise ConfigurationError(f"@levada.subscribe() was given {wrong}. See docs/handlers.md.")
