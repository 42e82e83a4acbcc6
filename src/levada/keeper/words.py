"""The status in words and columns, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from .status import Status, StoreStatus

_UNITS = ("B", "KB", "MB", "GB", "TB")


def status(found: Status) -> Iterator[str]:
    """Yield the lines of `manage.py levada status`."""
    outbox, log = found.outbox, found.log
    relay = f"relay: process {outbox.relay_pid}" if outbox.relay_pid else "relay: nobody"
    yield f"Source  {outbox.source} ({outbox.vendor})  {relay}"
    yield "        " + (outbox.error or f"outbox {count(outbox.rows, 'row')}, {_oldest(outbox)}")
    yield f"Log     {log.place}"
    if log.error:
        yield f"        {log.error}"
    else:
        yield f"        {size(log.size_bytes)}, epoch {log.epoch}"
        for topic in log.topics:
            kept = count(topic.end - topic.begin, "record")
            yield f"        {topic.topic}: {topic.begin:,} to {topic.end:,}, {kept}"
    yield ""
    yield from table(
        ["Store", "Rows", "Size", "Lag", "Dead letters", "Verified", "Kept by"],
        [_store_row(store, found.at) for store in found.stores],
    )
    yield from _details(found.stores)
    yield from _groups(found)


def _oldest(outbox: object) -> str:
    oldest_s = getattr(outbox, "oldest_s", 0.0)
    return f"the oldest {seconds(oldest_s)} old" if oldest_s else "nothing waits"


def _store_row(store: StoreStatus, now: datetime) -> list[str]:
    verified = store.verified
    state = verified.words if verified else "unknown"
    if verified and verified.at:
        tick = " ✓" if state == "verified" else ""
        state = f"{state}{tick} {seconds((now - verified.at).total_seconds())} ago"
    return [
        store.alias,
        f"{sum(store.tables.values()):,}" if store.position else "—",
        size(store.size_bytes),
        f"{count(store.lag_records, 'record')}, {seconds(store.lag_s)}" if store.position else "—",
        f"{store.dead_letters:,}",
        state,
        f"process {store.keeper_pid}" if store.keeper_pid else "nobody",
    ]


def _details(stores: Sequence[StoreStatus]) -> Iterator[str]:
    for store in stores:
        if not (store.error or store.tables):
            continue
        yield ""
        yield f"{store.alias}  {store.path}"
        if store.position:
            yield f"    at {store.position}"
        if store.error:
            yield f"    {store.error}"
        width = max((len(label) for label in store.tables), default=0)
        for label, rows in store.tables.items():
            yield f"    {label:<{width}}  {rows:>12,}"


def _groups(found: Status) -> Iterator[str]:
    if not found.log.groups:
        return
    yield ""
    yield from table(
        ["Group", "Topic", "Offset", "Lag"],
        [
            [each.group, each.topic, f"{each.offset:,}", count(each.lag_records, "record")]
            for each in found.log.groups
        ],
    )
    for each in found.log.groups:
        if each.tries:
            yield f"{each.group} failed {count(each.tries, 'time')} at {each.topic}:{each.offset}"
            yield from (f"    {line}" for line in each.reason.splitlines())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield `head` and `rows` in columns as wide as their widest cell."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join(cells).rstrip()


def count(number: int, noun: str) -> str:
    """Write a number with its noun: `1 record`, `1,234 records`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def seconds(duration_s: float) -> str:
    """Write a duration in the unit that suits it: `0.0 s`, `3 min`, `2 h`, `5 d`."""
    if duration_s < 100:
        return f"{duration_s:.1f} s"
    for limit_s, unit_s, unit in ((7200, 60, "min"), (172_800, 3600, "h")):
        if duration_s < limit_s:
            return f"{duration_s / unit_s:.0f} {unit}"
    return f"{duration_s / 86_400:.0f} d"


def size(size_bytes: float) -> str:
    """Write a size in the unit that suits it: `0 B`, `12.3 MB`."""
    for unit in _UNITS[:-1]:
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} {_UNITS[-1]}"
