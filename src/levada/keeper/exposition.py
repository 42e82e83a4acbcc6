"""What /metrics tells: a `Status` as metric families."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from .metrics import Family
from .status import Status, StoreStatus
from .supervisor import PartStatus

Samples = tuple[tuple[Mapping[str, str], float], ...]


def families(status: Status) -> Iterator[Family]:
    """Yield every family, in the order data moves; a place that did not answer has no samples."""
    yield from _parts(status)
    yield from _outbox(status)
    yield from _log(status)
    yield from _stores(status)
    yield Family(
        "levada_dead_letters",
        "gauge",
        "Dead letters that wait for a person, by consumer.",
        tuple(({"consumer": name}, count) for name, count in status.dead_letters.items()),
    )


def _parts(status: Status) -> Iterator[Family]:
    def each(value: Callable[[PartStatus], float]) -> Samples:
        return tuple(({"part": part.name}, value(part)) for part in status.parts)

    yield Family("levada_part_up", "gauge", "1 while the part is at work.", each(lambda p: p.up))
    yield Family(
        "levada_part_restarts_total",
        "counter",
        "How often the part was opened again after a failure.",
        each(lambda part: part.restarts),
    )
    yield Family(
        "levada_part_records_total",
        "counter",
        "Records the part worked on since the keeper started.",
        each(lambda part: part.records),
    )
    yield Family(
        "levada_part_batches_total",
        "counter",
        "Batches the part worked on since the keeper started.",
        each(lambda part: part.batches),
    )


def _outbox(status: Status) -> Iterator[Family]:
    outbox = status.outbox
    labels = {"source": outbox.source}
    known = not outbox.error
    yield Family(
        "levada_source_up", "gauge", "1 while the source database answers.", ((labels, known),)
    )
    yield Family(
        "levada_outbox_rows",
        "gauge",
        "Rows of the outbox that the log does not hold yet.",
        ((labels, outbox.rows),) if known else (),
    )
    yield Family(
        "levada_outbox_oldest_seconds",
        "gauge",
        "Age of the oldest row in the outbox.",
        ((labels, outbox.oldest_s),) if known else (),
    )


def _log(status: Status) -> Iterator[Family]:
    log = status.log
    yield Family("levada_log_up", "gauge", "1 while the log can be read.", (({}, not log.error),))
    yield Family(
        "levada_log_size_bytes",
        "gauge",
        "Room the log takes on disk.",
        () if log.error else (({}, log.size_bytes),),
    )
    yield Family(
        "levada_relayed_records_total",
        "counter",
        "Records relayed into the log since it was created, by topic.",
        tuple(({"topic": each.topic}, each.end) for each in log.topics),
    )
    yield Family(
        "levada_log_records",
        "gauge",
        "Records the log keeps, by topic.",
        tuple(({"topic": each.topic}, each.end - each.begin) for each in log.topics),
    )
    yield Family(
        "levada_group_lag_records",
        "gauge",
        "Records of the log that a consumer group has not finished.",
        tuple(
            ({"group": each.group, "topic": each.topic}, each.lag_records) for each in log.groups
        ),
    )


def _stores(status: Status) -> Iterator[Family]:
    def each(value: Callable[[StoreStatus], float], answering: bool = True) -> Samples:
        stores = [s for s in status.stores if not answering or (s.position and not s.error)]
        return tuple(({"store": store.alias}, value(store)) for store in stores)

    yield Family(
        "levada_store_up",
        "gauge",
        "1 while the store answers and was filled.",
        each(lambda store: bool(store.position and not store.error), answering=False),
    )
    yield Family(
        "levada_store_lag_records",
        "gauge",
        "Committed changes that the store lacks.",
        each(lambda store: store.lag_records),
    )
    yield Family(
        "levada_store_lag_seconds",
        "gauge",
        "How long the oldest change that the store lacks has been waiting.",
        each(lambda store: store.lag_s),
    )
    yield Family(
        "levada_store_applied_records_total",
        "counter",
        "Records of this log that the store has applied or was built from.",
        each(lambda store: store.applied_records),
    )
    yield Family(
        "levada_store_size_bytes", "gauge", "Room on disk.", each(lambda store: store.size_bytes)
    )
    yield Family(
        "levada_store_rows",
        "gauge",
        "Rows, by table.",
        tuple(
            ({"store": store.alias, "table": label}, rows)
            for store in status.stores
            for label, rows in store.tables.items()
        ),
    )
    yield from _verified(status)


def _verified(status: Status) -> Iterator[Family]:
    known = [
        (store.alias, store.verified, store.verified.at)
        for store in status.stores
        if store.verified and store.verified.at
    ]
    yield Family(
        "levada_store_verified_equal",
        "gauge",
        "1 if the store was equal to its source when it was last verified.",
        tuple(({"store": alias}, verified.equal) for alias, verified, _ in known),
    )
    yield Family(
        "levada_store_verified_timestamp_seconds",
        "gauge",
        "When the store was last verified, its table verified longest ago.",
        tuple(({"store": alias}, at.timestamp()) for alias, _, at in known if at),
    )
