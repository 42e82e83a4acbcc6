"""
Replay: hand old records to a group, or apply them to a store, once more.

A store's position never moves back, for its readers would see old values
return. Its records up to where it stands are applied again in one
transaction at that same position; the last change of each key wins, so the
rows come out as the log says they are.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from .. import conf
from ..changes import CHANGES, Batch, Position
from ..conf import settings
from ..contracts import Log
from ..errors import ForeignPosition, LevadaError, PositionLost, PositionMoved, StoreBusy
from .words import count

MOST_RECORDS = 1_000_000
"""More than that is a rebuild's business: a replay holds its records in memory."""

ATTEMPTS = 20


class NotReplayable(LevadaError):
    """The consumer or the place to replay from does not exist, or is too far back."""


def replay(consumer: str, begin: str, topic: str | None = None) -> str:
    """
    Replay for a store or a group from `begin`; say what was done in a sentence.

    begin: `beginning`, an offset, or a position. Raises NotReplayable,
    ForeignPosition for a position of another log, PositionLost for one that
    retention has passed.
    """
    from ..log import open_log

    log = open_log()
    if consumer in conf.store_aliases():
        return _replay_store(consumer, begin, log)
    return _replay_group(consumer, begin, topic, log)


def resolve(begin: str, topic: str, log: Log) -> Position:
    """Return the position `begin` means in `topic`. Raises ForeignPosition, PositionLost."""
    oldest, end = log.beginning(topic), log.end(topic)
    if begin == "beginning":
        return oldest
    position = (
        Position(log.epoch, topic, int(begin)) if begin.isdecimal() else Position.parse(begin)
    )
    position.covers(oldest)  # raises for another log or topic
    if position.offset < oldest.offset:
        raise PositionLost(
            f"Offset {position.offset} of {topic!r} is no longer in the log, which begins at "
            f"{oldest.offset}. Replay from there (--from beginning), or rebuild the store."
        )
    if position.offset > end.offset:
        raise ForeignPosition(
            f"Offset {position.offset} of {topic!r} is beyond the log, which ends at "
            f"{end.offset}. See: manage.py levada status"
        )
    return position


def _replay_store(alias: str, begin: str, log: Log) -> str:
    from ..stores import open_store

    start = resolve(begin, CHANGES, log)
    with closing(open_store(alias, create=False)) as store:
        for _ in range(ATTEMPTS):
            at = store.position()
            if at is None:
                raise NotReplayable(
                    f"{alias} was never filled. Run: manage.py levada rebuild {alias}"
                )
            at.covers(start)  # raises for another log
            batch = _between(log, start, at)
            try:
                store.apply(batch, expected=at, skip=_dead(alias, log))
            except (PositionMoved, StoreBusy):
                continue  # a running applier was faster: what it wrote belongs in, too
            return (
                f"{alias}: applied {count(len(batch), 'record')} again, from offset "
                f"{batch.start.offset} up to its position {at.offset}, in one transaction."
            )
    raise NotReplayable(
        f"{alias} moved on {ATTEMPTS} times while records were read. "
        f"Stop its keeper for a moment, or run: manage.py levada rebuild {alias}"
    )


def _between(log: Log, start: Position, end: Position) -> Batch:
    """Read the records from `start` to `end` as one batch. Raises NotReplayable if too many."""
    if end.offset - start.offset > MOST_RECORDS:
        raise NotReplayable(
            f"{end.offset - start.offset:,} records are more than a replay holds in memory "
            f"({MOST_RECORDS:,}). Run: manage.py levada rebuild"
        )
    rows: list[Any] = []
    at = start
    while at.offset < end.offset:
        batch = log.read(at, min(settings.BATCH_ROWS, end.offset - at.offset))
        rows += batch.rows
        at = batch.end
    return Batch([row for row in rows if row[0] < end.offset], start, end)


def _dead(alias: str, log: Log) -> set[int]:
    """Return the offsets the store never took: they stay left out."""
    from ..outbox.models import DeadLetter

    letters = (
        DeadLetter.objects.using(settings.SOURCE)
        .filter(consumer=alias, epoch=log.epoch, topic=CHANGES)
        .exclude(state=DeadLetter.State.RETRIED)
    )
    return set(letters.values_list("offset", flat=True))


def _replay_group(group: str, begin: str, topic: str | None, log: Log) -> str:
    from ..apply.handlers import groups, move

    known = sorted({*log.groups(), *groups()} - set(conf.store_aliases()))
    if group not in known:
        raise NotReplayable(
            f"{group!r} is neither a store nor a consumer group. "
            f"Stores: {', '.join(conf.store_aliases()) or 'none'}; "
            f"groups: {', '.join(known) or 'none'}."
        )
    start = resolve(begin, topic or _topic_of(group, begin, log), log)
    move(group, start, log)
    ahead = log.end(start.topic).offset - start.offset
    return f"{group}: goes on at {start}; its handlers will see {count(ahead, 'record')} again."


def _topic_of(group: str, begin: str, log: Log) -> str:
    if begin != "beginning" and not begin.isdecimal():
        return Position.parse(begin).topic
    topics = sorted(log.groups().get(group, {}))
    if len(topics) != 1:
        raise NotReplayable(
            f"The group {group!r} reads {', '.join(topics) or 'no topic yet'}. "
            f"Say which one: --topic TOPIC"
        )
    return topics[0]
