"""
Forgetting a row: its images leave the retained log and the dead letters.

The row itself must be gone already, and every store and group must have
passed its deletion: a blank image is of no use to somebody who still needs it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils import timezone

from .. import conf
from ..changes import CHANGES, Position
from ..conf import Replicated, settings
from ..contracts import Log
from ..errors import LevadaError, UnknownModel
from ..tables import ColumnSpec

WAIT_S = 15.0
"""How long to wait for a running keeper to carry the deletion everywhere."""


class NotForgettable(LevadaError):
    """The row cannot be forgotten yet, or not by this key."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was done: the row, how much was blanked, and the stores that no longer have it."""

    label: str
    key: str
    records: int
    dead_letters: int
    stores: tuple[str, ...]


def forget(label: str, pk: Sequence[str], *, wait_s: float = WAIT_S) -> Forgotten:
    """
    Blank every image of one row that is kept outside the tables.

    pk: the key's values as text, in order. The rows of multi-table parents
    with the same key are forgotten with it, unless they live on.
    Raises UnknownModel, and NotForgettable where the row still exists or
    somebody has not passed its deletion within `wait_s`.
    """
    from ..log import open_log

    each = _replicated(label)
    values = key_values(each.model, pk)
    if _exists(each.model, values):
        raise NotForgettable(
            f"{each.model._meta.label} {', '.join(pk)} is still in {settings.SOURCE!r}. "
            f"Delete it first; the deletion reaches every store by itself."
        )
    log = open_log()
    family = [each, *_parents_gone(each.model, values)]
    keys = {member.model._meta.label: key_text(member, values) for member in family}
    _wait_until_passed(log, each, keys, wait_s)
    return Forgotten(
        label=each.model._meta.label,
        key=keys[each.model._meta.label],
        records=sum(log.forget(*item) for item in keys.items()),
        dead_letters=sum(_blank_dead_letters(*item) for item in keys.items()),
        stores=each.stores,
    )


def key_values(model: type[models.Model], pk: Sequence[str]) -> list[Any]:
    """Turn what a person typed into values of the key's fields. Raises NotForgettable."""
    fields = _key_fields(model)
    names = ", ".join(field.name for field in fields)
    if len(fields) != len(pk):
        raise NotForgettable(
            f"The key of {model._meta.label} has {len(fields)} values ({names}), not {len(pk)}. "
            f"Write: manage.py levada forget {model._meta.label} "
            f"{' '.join(field.name.upper() for field in fields)}"
        )
    try:
        return [field.to_python(text) for field, text in zip(fields, pk, strict=True)]
    except ValidationError as error:
        raise NotForgettable(
            f"{' '.join(pk)!r} is no key of {model._meta.label} ({names}): "
            f"{' '.join(error.messages)} Write it as Django reads it."
        ) from error


def key_text(each: Replicated, values: Sequence[Any]) -> str:
    """Write a key as the triggers do. Raises NotForgettable for a kind that has no one form."""
    spec = each.spec
    columns = {column.name: column for column in spec.columns}
    return "[" + ",".join(
        _value_text(spec.label, columns[name], value)
        for name, value in zip(spec.key, values, strict=True)
    ) + "]"  # fmt: skip


_WRITE: dict[str, Callable[[Any], Any]] = {
    "integer": int,
    "boolean": bool,
    "text": str,
    "uuid": str,
    "date": lambda value: value.isoformat(),
    "duration": lambda value: value // timedelta(microseconds=1),
    "binary": lambda value: "\\x" + bytes(value).hex(),
}


def _value_text(label: str, column: ColumnSpec, value: Any) -> str:
    write = _WRITE.get(column.kind)
    if write is None:
        raise NotForgettable(
            f"The key of {label} is a {column.kind} ({column.name}), which can be written in "
            f"several ways. Shorten LEVADA['LOG_RETENTION_S'] instead, until the log is past it."
        )
    return json.dumps(write(value), ensure_ascii=False)


def _replicated(label: str) -> Replicated:
    known = conf.replicated()
    by_lower = {name.lower(): name for name in known}
    if label.lower() not in by_lower:
        close = get_close_matches(label, known, n=1)
        raise UnknownModel(
            f"{label!r} is not replicated, so no log holds its rows. "
            + (f"Did you mean {close[0]!r}? " if close else "")
            + f"Replicated are: {', '.join(known)}."
        )
    return known[by_lower[label.lower()]]


def _key_fields(model: type[models.Model]) -> list[Any]:
    pk_fields = getattr(model._meta, "pk_fields", None)
    return list(pk_fields) if pk_fields else [model._meta.pk]


def _exists(model: type[models.Model], values: Sequence[Any]) -> bool:
    pk = tuple(values) if len(values) > 1 else values[0]
    return model._base_manager.using(settings.SOURCE).filter(pk=pk).exists()


def _parents_gone(model: type[models.Model], values: Sequence[Any]) -> list[Replicated]:
    known = conf.replicated()
    return [
        known[parent._meta.label]
        for parent in model._meta.get_parent_list()
        if parent._meta.label in known and not _exists(parent, values)
    ]


def _wait_until_passed(log: Log, each: Replicated, keys: dict[str, str], wait_s: float) -> None:
    """Wait until log, stores and groups are behind the deletion. Raises NotForgettable."""
    give_up_at = time.monotonic() + wait_s
    end: Position | None = None
    while True:
        behind = ["the relay"] if _in_outbox(keys) else []
        if not behind:
            end = end or log.end(CHANGES)
            behind = _behind(log, each, end)
        if not behind:
            return
        if time.monotonic() >= give_up_at:
            raise NotForgettable(
                f"{' and '.join(behind)} did not pass the deletion of {each.model._meta.label} "
                f"{keys[each.model._meta.label]} within {wait_s:.0f} s. "
                f"Run: manage.py levada run, and see: manage.py levada status"
            )
        time.sleep(0.05)


def _in_outbox(keys: dict[str, str]) -> bool:
    from ..outbox.models import Outbox

    wanted = models.Q()
    for label, key in keys.items():
        wanted |= models.Q(label=label, key=key)
    return Outbox.objects.using(settings.SOURCE).filter(wanted).exists()


def _behind(log: Log, each: Replicated, end: Position) -> list[str]:
    """Name the stores of the model, and the groups, that are not at `end` yet."""
    from ..stores import open_store

    late = []
    for alias in each.stores:
        with closing(open_store(alias, create=False)) as store:
            at = store.position()
        if at is not None and not at.covers(end):
            late.append(f"store {alias!r}")
    for group, positions in log.groups().items():
        at = positions.get(CHANGES)
        if group not in conf.store_aliases() and at is not None and not at.covers(end):
            late.append(f"group {group!r}")
    return late


_KEPT = ("offset", "topic", "label", "op", "key", "fingerprint", "source_id", "changed_at")


def _blank_dead_letters(label: str, key: str) -> int:
    """Take the images out of the row's dead letters; one that waited is dropped."""
    from ..outbox.models import DeadLetter

    letters = DeadLetter.objects.using(settings.SOURCE).filter(label=label, key=key)
    with transaction.atomic(using=settings.SOURCE):
        for letter in letters:
            record = json.loads(letter.record)
            # Only what is known to hold no value of the row stays.
            letter.record = json.dumps({name: record[name] for name in _KEPT if name in record})
            letter.reason = "Forgotten."
            if letter.state == DeadLetter.State.WAITING:
                letter.state, letter.decided_at = DeadLetter.State.DROPPED, timezone.now()
            letter.save()
        return len(letters)
