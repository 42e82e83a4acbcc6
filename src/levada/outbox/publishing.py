"""`publish()`: a message that commits, or is rolled back, with the data it speaks of."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections

from ..changes import CHANGES, MESSAGE
from ..conf import settings
from ..errors import InvalidMessage, UnsupportedVendor

TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""Also what Kafka accepts as (part of) a topic's name."""

TRANSACTION = {"sqlite": "printf()", "postgresql": "pg_current_xact_id()::text::bigint"}
CONTEXT = {
    "sqlite": "strftime()",
    "postgresql": "NULLIF(current_setting('levada.context', true), '')",
}
"""
What numbers the transaction, and who acts in it, as the triggers write it too.

On SQLite these two, without arguments, are NULL unless Django's connection
gives them a meaning (`levada.capture.sqlite`).
"""


def publish(topic: str, payload: Any, *, key: Any = None, using: str | None = None) -> None:
    """
    Put a message into the outbox, in the transaction that is open on the source database.

    topic: letters, digits, dot, hyphen, underscore; at most 200; not `changes`.
    payload: whatever Django's JSON encoder takes; numbers with a fraction
        are best given as Decimal, which travels as text.
    key: JSON as well; messages of one key keep their order in every log.
    using: the database alias, by default LEVADA["SOURCE"].
    Raises InvalidMessage, having written nothing, for anything else. Outside
    a transaction the message is committed at once.
    """
    connection = connections[using or settings.SOURCE]
    if connection.vendor not in TRANSACTION:
        raise UnsupportedVendor(
            f"publish() needs an SQLite or PostgreSQL database; {connection.alias!r} is "
            f"{connection.vendor}. Set LEVADA['SOURCE'] to the alias of one."
        )
    _check_topic(topic)
    row = [
        topic,
        MESSAGE,
        None if key is None else _json(topic, "key", key),
        _json(topic, "payload", payload),
        datetime.now(UTC).isoformat(timespec="microseconds"),
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO levada_outbox (topic, label, op, key, before, after, fingerprint,"
            ' "transaction", changed_at, context)'
            f" VALUES (%s, '', %s, %s, NULL, %s, '', {TRANSACTION[connection.vendor]}, %s,"
            f" {CONTEXT[connection.vendor]})",
            row,
        )


def _check_topic(topic: str) -> None:
    if topic == CHANGES:
        raise InvalidMessage(
            f"topic {CHANGES!r} holds the row changes; a message needs a topic of its own. "
            f"Write for instance: publish('orders.paid', …)"
        )
    if not isinstance(topic, str) or not TOPIC.fullmatch(topic):
        raise InvalidMessage(
            f"{topic!r} cannot be a topic. "
            f"Use 1 to 200 letters, digits, dots, hyphens and underscores."
        )


def _json(topic: str, what: str, value: Any) -> str:
    try:
        # NaN and Infinity are no JSON; a store would choke on them long after the commit.
        text = json.dumps(value, cls=DjangoJSONEncoder, allow_nan=False, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, cls=DjangoJSONEncoder, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidMessage(
            f"the {what} of a message to {topic!r} is no JSON: {error}. "
            f"Give numbers, text, lists, dicts, dates, Decimal or UUID."
        ) from error
    return text
