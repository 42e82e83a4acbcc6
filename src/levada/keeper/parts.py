"""
Which parts a keeper has: what the settings ask for, and what `--only` leaves of it.

    relay               outbox → log, one a source
    apply:<alias>       log → store, one a store
    handlers:<group>    log → the project's handlers, one a consumer group
    retention           deletes log records that are old and read by all
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connections

from .. import conf
from ..conf import settings
from ..contracts import Log
from ..errors import ConfigurationError, StoreBusy
from .locks import PartLock
from .supervisor import PartSpec, Runner

logger = logging.getLogger("levada.keeper")

RETENTION_EVERY_S = 60.0
"""Pruning reads an index and mostly finds nothing; once a minute keeps the log bounded."""


class Retention:
    """Deletes what `LEVADA["LOG_RETENTION_S"]` no longer asks for, as far as all have read."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def prune(self) -> int:
        """Prune once; return how many records went."""
        return self.log.prune(older_than_s=settings.LOG_RETENTION_S)

    def run(self, stop: threading.Event) -> None:
        """Prune every RETENTION_EVERY_S, and more often where the retention is shorter."""
        while not stop.is_set():
            pruned = self.prune()
            if pruned:
                logger.info("removed %d old records", pruned, extra={"part": "retention"})
            stop.wait(min(RETENTION_EVERY_S, settings.LOG_RETENTION_S))


def part_specs() -> list[PartSpec]:
    """Return every part the settings ask for, in the order data moves."""
    from ..apply.handlers import groups

    specs = [PartSpec("relay", _relay)]
    specs += [
        PartSpec(f"apply:{alias}", _opener(_applier, alias)) for alias in conf.store_aliases()
    ]
    specs += [PartSpec(f"handlers:{group}", _opener(_handlers, group)) for group in groups()]
    specs.append(PartSpec("retention", _retention))
    return specs


def choose(specs: Sequence[PartSpec], only: Iterable[str] | None) -> list[PartSpec]:
    """
    Return the specs that `only` names, all for None, in their own order.

    `apply` means every `apply:…`, `handlers` every `handlers:…`. Raises
    ConfigurationError for a name that is no part, and where nothing is left.
    """
    if only is None:
        return list(specs)
    wanted = list(only)
    kinds = {"apply", "handlers"}
    for name in wanted:
        if name not in kinds and name not in {spec.name for spec in specs}:
            raise ConfigurationError(
                f"There is no part {name!r} to keep. "
                f"The parts are: {', '.join(spec.name for spec in specs)}."
            )
    chosen = [s for s in specs if s.name in wanted or s.name.partition(":")[0] in wanted]
    if not chosen:
        raise ConfigurationError(
            f"Nothing to keep: no part is left of {', '.join(wanted) or 'none'}. "
            f"The parts are: {', '.join(spec.name for spec in specs)}."
        )
    return chosen


def lock_path(part: str) -> Path | None:
    """Return the lock file of a part, beside the log; None where the log is no file."""
    if settings.LOG.get("ENGINE", "levada.log.embedded") != "levada.log.embedded":
        return None
    name = f"relay-{settings.SOURCE}" if part == "relay" else part.replace(":", "-")
    log = conf.log_path()
    return log.with_name(f"{log.name}.{name.replace('/', '_')}.lock")


def lock_for(part: str) -> PartLock | None:
    """Return the lock of a part; None where one process holds the whole log anyway."""
    path = lock_path(part)
    return PartLock(path, part) if path else None


def _opener(open_part: Callable[[str], Any], name: str) -> Callable[[], Any]:
    return lambda: open_part(name)


@contextmanager
def _relay() -> Iterator[Runner]:
    from ..log import open_log
    from ..outbox.sources import open_source
    from ..relay import Relay

    source = open_source(settings.SOURCE)
    try:
        yield Relay(source, open_log())
    finally:
        source.close()


@contextmanager
def _applier(alias: str) -> Iterator[Runner]:
    from ..apply import Applier
    from ..log import open_log
    from ..outbox.sources import open_source
    from ..stores import open_store

    _own(alias)
    source = open_source(settings.SOURCE)
    try:
        yield Applier(open_store(alias), open_log(), source)
    finally:
        source.close()


def _own(alias: str) -> None:
    """
    Have this process open the store's file, if it is one.

    Batches need not cross a socket then, and the web workers that come and go
    leave the file where it is. Applying works through another owner as well.
    """
    place = getattr(connections[alias], "place", None)
    if place is None:
        return
    from ..stores.duckdb.ownership import take_over

    try:
        take_over(place)
    except StoreBusy as error:
        logger.info("applied through another process for now: %s", error)


@contextmanager
def _handlers(group: str) -> Iterator[Runner]:
    from ..apply.handlers import HandlerRunner
    from ..log import open_log

    yield HandlerRunner(group, open_log())


@contextmanager
def _retention() -> Iterator[Runner]:
    from ..log import open_log

    yield Retention(open_log())
