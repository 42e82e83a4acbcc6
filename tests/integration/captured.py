"""Reads the outbox the way the capture tests talk about it."""

import json
from contextlib import contextmanager
from decimal import Decimal
from typing import NamedTuple

from levada.models import Outbox


class Captured(NamedTuple):
    """One outbox row with its JSON decoded."""

    op: str
    label: str
    key: list | None
    before: dict | None
    after: dict | None
    fingerprint: str
    transaction: int | None
    context: dict | None


def decode(text):
    return None if text is None else json.loads(text, parse_float=Decimal)


def captured(label=None):
    """Return the outbox's rows in id order, of one table where `label` says so."""
    rows = Outbox.objects.order_by("id")
    return [
        Captured(
            row.op,
            row.label,
            decode(row.key),
            decode(row.before),
            decode(row.after),
            row.fingerprint,
            row.transaction,
            decode(row.context),
        )
        for row in rows
        if label in (None, row.label)
    ]


@contextmanager
def capturing(label=None):
    """Empty the outbox, run the block, and fill the list it gave with what was captured."""
    Outbox.objects.all().delete()
    rows = []
    yield rows
    rows.extend(captured(label))


def ops(rows):
    """Say in brief what happened: [("c", "shop.Order"), …]."""
    return [(row.op, row.label) for row in rows]
