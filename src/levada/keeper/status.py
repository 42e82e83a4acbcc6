"""
How far everybody has come: source, log, stores, consumer groups, dead letters.

Reads only, and goes on where one place does not answer: its `error` says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.db import connections
from django.db.models import Count

from .. import conf
from ..changes import CHANGES, Position
from ..conf import settings
from ..errors import ForeignPosition, LevadaError
from .locks import holder
from .parts import lock_path
from .supervisor import PartStatus
from .verified import Verified, last_verified


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """The source's outbox: rows the log does not hold yet, and the age of the oldest."""

    source: str
    vendor: str
    rows: int = 0
    oldest_s: float = 0.0
    relay_pid: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """One topic of the log: the offsets it holds, `begin` included, `end` not."""

    topic: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """
    One consumer group in one topic, stores included: its offset, and the records it lacks.

    tries, reason: how often the record at `offset` failed in a handler, and how it did last.
    """

    group: str
    topic: str
    offset: int
    lag_records: int
    tries: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LogStatus:
    """The log: where, how large, its topics and the groups that read it."""

    place: str
    epoch: str = ""
    size_bytes: int = 0
    topics: tuple[TopicStatus, ...] = ()
    groups: tuple[GroupStatus, ...] = ()
    error: str = ""

    def end(self, topic: str) -> int:
        """Return the offset after the newest record of `topic`."""
        return next((each.end for each in self.topics if each.topic == topic), 0)


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """
    One store.

    tables: rows by label. lag_records: changes committed in the source, in
    the log or still in the outbox, that the store lacks. lag_s: how long the
    oldest of them has been waiting, 0 for none. keeper_pid: who applies, None
    for nobody.
    """

    alias: str
    path: str
    position: str | None = None
    applied_records: int = 0
    lag_records: int = 0
    lag_s: float = 0.0
    tables: dict[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    dead_letters: int = 0
    verified: Verified | None = None
    keeper_pid: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Everything at one moment."""

    at: datetime
    outbox: OutboxStatus
    log: LogStatus
    stores: tuple[StoreStatus, ...]
    dead_letters: dict[str, int]
    parts: tuple[PartStatus, ...] = ()

    @property
    def caught_up(self) -> bool:
        """Say whether every store was reached and has all that is committed."""
        return (
            not self.outbox.error
            and not self.log.error
            and all(not store.error and store.position for store in self.stores)
            and all(store.lag_records == 0 for store in self.stores)
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for json.dumps."""
        found = asdict(self)
        found["at"] = self.at.isoformat()
        for store, each in zip(found["stores"], self.stores, strict=True):
            if each.verified:
                at = each.verified.at
                store["verified"] |= {"words": each.verified.words}
                store["verified"]["at"] = at.isoformat() if at else None
        return found | {"caught_up": self.caught_up}


def read_status(
    aliases: Iterable[str] | None = None, *, parts: Sequence[PartStatus] = (), counts: bool = True
) -> Status:
    """
    Look at everything; `aliases` limits the stores.

    counts: also count the rows of each table, a scan of one column each.
    Raises ConfigurationError for settings that cannot work.
    """
    outbox = read_outbox()
    log = read_log()
    dead = _dead_letters()
    chosen = conf.store_aliases() if aliases is None else tuple(aliases)
    stores = tuple(_store(alias, outbox, log, dead, counts=counts) for alias in chosen)
    return Status(datetime.now(UTC), outbox, log, stores, dead, tuple(parts))


def read_outbox() -> OutboxStatus:
    """Look into the outbox."""
    from ..outbox.models import Outbox

    alias = settings.SOURCE
    vendor = connections[alias].vendor
    pid = _pid("relay")
    try:
        waiting = Outbox.objects.using(alias)
        rows = waiting.count()
        oldest = waiting.order_by("id").values_list("changed_at", flat=True).first()
    except Exception as error:
        return OutboxStatus(alias, vendor, relay_pid=pid, error=_words(error))
    return OutboxStatus(alias, vendor, rows, _age_s(oldest), pid)


def read_log() -> LogStatus:
    """Look at the log, without creating one."""
    from ..log import open_log

    path = conf.log_path() if lock_path("relay") else None
    place = str(path or settings.LOG.get("ENGINE"))
    if path and not path.exists():
        return LogStatus(place, error="No log yet. Run: manage.py levada run")
    try:
        log = open_log()
        topics = tuple(
            TopicStatus(topic, log.beginning(topic).offset, log.end(topic).offset)
            for topic in log.topics()
        )
        failed = _failures(log.epoch)
        groups = tuple(
            GroupStatus(
                group, topic, at.offset, at.lag(log.end(topic)), *failed.get((group, topic), ())
            )
            for group, positions in log.groups().items()
            for topic, at in positions.items()
        )
        return LogStatus(place, log.epoch, log.size_bytes(), topics, groups)
    except Exception as error:
        return LogStatus(place, error=_words(error))


def _failures(epoch: str) -> dict[tuple[str, str], tuple[int, str]]:
    """Return the tries and reason of each group and topic whose next record has failed."""
    from ..outbox.models import GroupPosition

    failed = GroupPosition.objects.using(settings.SOURCE).filter(epoch=epoch, tries__gt=0)
    try:
        return {(each.group, each.topic): (each.tries, each.reason) for each in failed}
    except Exception:
        return {}  # the outbox of the same database tells why


def _store(
    alias: str, outbox: OutboxStatus, log: LogStatus, dead: dict[str, int], *, counts: bool
) -> StoreStatus:
    path = str(django_settings.DATABASES.get(alias, {}).get("NAME", ""))
    known: dict[str, Any] = {
        "size_bytes": size_bytes(path),
        "dead_letters": dead.get(alias, 0),
        "keeper_pid": _pid(f"apply:{alias}"),
    }
    try:
        known["verified"] = last_verified(alias)
        known |= _inside(alias, outbox, log, counts=counts)
    except Exception as error:
        known["error"] = _words(error)
    return StoreStatus(alias, path, **known)


def _inside(alias: str, outbox: OutboxStatus, log: LogStatus, *, counts: bool) -> dict[str, Any]:
    """Read what only the store itself knows."""
    from ..stores import open_store

    never = {
        "verified": None,  # of rows that are gone, if it was filled once
        "lag_records": outbox.rows + log.end(CHANGES),
        "error": f"Never filled. Run: manage.py levada run, or: manage.py levada rebuild {alias}",
    }
    with closing(open_store(alias, create=False)) as store:
        position = store.position()
        if position is None:
            return never
        tables = {
            label: _count(store.connection, spec.table) if counts else 0
            for label, spec in sorted(store.specs().items())
        }
    lag_records, lag_s = _lag(position, outbox, log)
    return {
        "position": str(position),
        "applied_records": position.offset,
        "lag_records": lag_records,
        "lag_s": lag_s,
        "tables": tables,
    }


def _lag(position: Position, outbox: OutboxStatus, log: LogStatus) -> tuple[int, float]:
    """Return the records a store at `position` lacks, and how long the oldest has waited."""
    from ..log import open_log

    if log.error:
        return outbox.rows, outbox.oldest_s
    if position.epoch != log.epoch:
        raise ForeignPosition(
            f"Its position {position} is of another log; this one is {log.epoch}. "
            f"Run: manage.py levada rebuild"
        )
    behind = max(0, log.end(position.topic) - position.offset)
    waiting_s = open_log().age_s(position) if behind else 0.0
    return behind + outbox.rows, max(waiting_s, outbox.oldest_s)


def _count(connection: Any, table: str) -> int:
    quoted = '"' + table.replace('"', '""') + '"'
    return int(connection.execute(f"SELECT count(*) FROM {quoted}").fetchall()[0][0])


def size_bytes(path: str) -> int:
    """Return what the file at `path` and its write-ahead log take on disk."""
    return sum(
        Path(each).stat().st_size for each in (path, f"{path}.wal") if path and os.path.isfile(each)
    )


def _dead_letters() -> dict[str, int]:
    """Count the dead letters that wait for a person, by consumer."""
    from ..outbox.models import DeadLetter

    waiting = DeadLetter.objects.using(settings.SOURCE).filter(state=DeadLetter.State.WAITING)
    try:
        return dict(
            waiting.values_list("consumer").annotate(letters=Count("id")).order_by("consumer")
        )
    except Exception:
        return {}  # the outbox of the same database tells why


def _pid(part: str) -> int | None:
    path = lock_path(part)
    found = holder(path) if path else None
    return found.pid if found else None


def _age_s(changed_at: str | None) -> float:
    if not changed_at:
        return 0.0
    moment = datetime.fromisoformat(changed_at)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())


def _words(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, LevadaError) else text.partition("\n")[0]
