"""One event's way: committed to the source, relayed into the log, visible in the replica."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from django.db import transaction

import levada
from almanac.calendar_events.importer import figures_of, key_of
from almanac.calendar_events.models import EconomicEvent
from levada.changes import SourcePosition
from levada.errors import Timeout
from levada.log import open_log
from levada.outbox.sources import open_source

from .places import REPLICA, SOURCE, NoReplica, gate
from .race import ARRIVAL_S, milliseconds

LOOK_S = 0.0005
"""How often the log is asked whether the relay has been there."""


@dataclass(frozen=True, slots=True)
class Journey:
    """
    How long one commit took to each place, in ms since it returned.

    replica_ms: None while there is no replica; then the event waits in the log.
    same: the replica's row has every figure of the row that was written.
    """

    event: EconomicEvent
    log_ms: float
    replica_ms: float | None = None
    same: bool = False

    def to_json(self) -> dict[str, Any]:
        """What the page shows; the texts are finished."""
        way = f"log {milliseconds(self.log_ms)}"
        if self.replica_ms is None:
            replica, way = "—", f"{way} · waits there for a replica"
        else:
            replica = milliseconds(self.replica_ms)
            way = f"{way} · replica {replica} {'✓' if self.same else 'but the rows differ'}"
        return {"id": self.event.pk, "event": str(self.event), "replica": replica, "way": way}


def send(event: EconomicEvent) -> Journey:
    """
    Commit `event` to the source and wait until the replica shows it.

    The clock starts when the commit has returned and stops when an ORM query
    on the replica has found the row. Raises levada.errors.Timeout after
    ARRIVAL_S; the event is committed all the same.
    """
    with transaction.atomic(using=SOURCE):
        event.save(using=SOURCE)
    committed_at = time.perf_counter()
    position = levada.position(SOURCE)
    wait_for_relay(position)
    log_ms = (time.perf_counter() - committed_at) * 1000
    try:
        with gate.reading():
            levada.wait_for(REPLICA, position, timeout_s=ARRIVAL_S)
            arrived = EconomicEvent.objects.using(REPLICA).filter(pk=event.pk).first()
            replica_ms = (time.perf_counter() - committed_at) * 1000
    except NoReplica:
        return Journey(event, log_ms)
    event.refresh_from_db(using=SOURCE)  # the figures with the digits their columns have
    return Journey(event, log_ms, replica_ms, arrived is not None and equal(arrived, event))


def wait_for_relay(position: SourcePosition) -> None:
    """Return once the log holds everything up to `position`. Raises Timeout after ARRIVAL_S."""
    log, source = open_log(), open_source(SOURCE)
    give_up_at = time.monotonic() + ARRIVAL_S
    try:
        while not source.covers(log.cursor(SOURCE), position):
            if time.monotonic() > give_up_at:
                raise Timeout(
                    f"The log did not hold position {position.cursor} of {SOURCE} within "
                    f"{ARRIVAL_S:g} s. See whether the keeper runs: manage.py levada status"
                )
            time.sleep(LOOK_S)
    finally:
        source.close()


def equal(one: EconomicEvent, other: EconomicEvent) -> bool:
    """Say whether two rows have the same key and the same figures."""
    return key_of(one) == key_of(other) and figures_of(one) == figures_of(other)
