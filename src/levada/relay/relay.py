"""
From outbox to log.

One step: fetch what committed since the cursor, append it to the log together
with the new cursor (compare-and-set), delete it from the outbox. Whatever
kills the relay in between, the next one starts from the log's cursor: rows
that are not in the log are fetched again, rows that are in it are only deleted.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from .. import faults
from ..conf import settings
from ..contracts import Log, Source
from ..errors import (
    ConfigurationError,
    ForeignPosition,
    LevadaError,
    LogCorrupt,
    LogFenced,
    SourceUnavailable,
)

logger = logging.getLogger(__name__)

ID = 8  # where the outbox id stands in a row
BACKOFF_FIRST_S, BACKOFF_LIMIT_S = 0.1, 10.0
MOST_IDS = 200_000
"""Ids remembered until the rest of their transaction has come, 8 MB; of a larger one the outbox is
emptied by what the cursor says, once its window is relayed."""
FINAL = (ConfigurationError, ForeignPosition, LogCorrupt, LogFenced)
"""Errors that trying again does not heal: they end `run()`."""


class Relay:
    """
    Moves one source's outbox into one log; several may try, the log fences all but one.

    rows_total: records appended since this object was made.
    error: what the last attempt failed with; None after one that did not.
    """

    def __init__(self, source: Source, log: Log, *, batch_rows: int | None = None) -> None:
        self.source = source
        self.log = log
        self.rows_total = 0
        self.error: LevadaError | None = None
        self._batch_rows = batch_rows
        self._lived = False  # whether this relay has ever read the log's cursor
        self._known = False  # whether the fields below say where the log stands
        self._durable: str | None = None  # the log's producer cursor
        self._intended: str | None = None  # what an append that failed may yet have written
        self._scanned: str | None = None  # up to here there is nothing to append
        self._prunable: list[int] = []  # rows to delete once that rest has come
        self._leftovers = True  # rows below the cursor may lie about from an earlier life

    def step(self) -> int:
        """
        Relay one batch; return how many rows, 0 when there was nothing.

        Raises what the source or the log raise; nothing is lost, the next
        step takes up where the log stands. LogFenced means that another
        relay is at work and this one must not go on.
        """
        try:
            count = self._step()
        except LevadaError as error:
            self.error = error
            self._known = isinstance(error, LogFenced)
            raise
        self.error = None
        return count

    def run(self, stop: threading.Event) -> None:
        """
        Relay until `stop` is set; returns then, after the batch at hand.

        Tries again after errors that may pass, with growing pauses. Raises
        those that need a person, LogFenced among them.
        """
        pause_s = BACKOFF_FIRST_S
        while not stop.is_set():
            try:
                if not self.step():
                    self._idle(stop)
                pause_s = BACKOFF_FIRST_S
            except FINAL:
                raise
            except LevadaError as error:
                logger.warning("relay of %s: %s", self.source.alias, error)
                stop.wait(pause_s)
                pause_s = min(2 * pause_s, BACKOFF_LIMIT_S)

    def _idle(self, stop: threading.Event) -> None:
        """Wait until there may be news; SQLite tells for 2 µs, so look often."""
        while not stop.wait(settings.POLL_S):
            if self.source.changed():
                return

    def _step(self) -> int:
        if not self._known:
            self._take_up()
        limit = self._batch_rows or settings.BATCH_ROWS
        fetched = self.source.fetch(self._scanned, limit)
        while not fetched.rows and fetched.more:
            # A window ended without more rows. The log must know: it may wait for the rest
            # of a transaction, and what an earlier relay left behind can go only then.
            self._append([], fetched.cursor, True)
            fetched = self.source.fetch(self._scanned, limit)
        if not fetched.rows:
            self._scanned = fetched.cursor
            self._prune_leftovers()
            return 0
        self._append(fetched.rows, fetched.cursor, fetched.whole)
        self.rows_total += len(fetched.rows)
        self._remember([row[ID] for row in fetched.rows])
        if fetched.whole:
            self._prune(leftovers=not fetched.more)
        return len(fetched.rows)

    def _take_up(self) -> None:
        """Start from the log's cursor. Raises LogCorrupt if the log knows less than it once did."""
        cursor = self.log.cursor(self.source.alias)
        if self._lived and cursor not in (self._durable, self._intended or self._durable):
            raise LogFenced(
                f"another relay has fed the log from {self.source.alias!r} meanwhile: its cursor "
                f"is {cursor}. Keep one relay only, see: manage.py levada status"
            )
        pruned = self.source.pruned(self.log.epoch)
        if pruned is not None and not self.source.reaches(cursor, pruned):
            raise LogCorrupt(
                f"the outbox of {self.source.alias!r} was emptied up to {pruned} because the log "
                f"held it, but now the log ends at {cursor}: it was cut short or restored from an "
                f"older copy. Move the log away and run: manage.py levada rebuild"
            )
        self._durable = self._scanned = cursor
        self._prunable = []
        self._leftovers = True
        self._lived = self._known = True
        self._prune_leftovers()
        self._leftovers = True

    def _append(self, rows: Any, cursor: str, whole: bool) -> None:
        self._intended = cursor
        faults.point("relay.before_append")
        self.log.append(
            rows,
            source=self.source.alias,
            expected=self._durable,
            cursor=cursor,
            whole=whole,
        )
        faults.point("relay.after_append")
        self._durable = self._scanned = cursor
        self._intended = None

    def _remember(self, ids: list[int]) -> None:
        """Note what to delete from the outbox once it is whole in the log."""
        self._prunable += ids
        if len(self._prunable) > MOST_IDS:
            self._prunable.clear()
            self._leftovers = True

    def _prune(self, *, leftovers: bool) -> None:
        """
        Delete what the log holds. A busy source only postpones it: the outbox can wait.

        leftovers: delete by the cursor as well, if there is reason to.
        """
        assert self._durable is not None
        ids, self._prunable = self._prunable, []
        try:
            self.source.prune(self._durable, ids, epoch=self.log.epoch)
            faults.point("relay.after_prune")
            if leftovers:
                self._prune_leftovers()
        except SourceUnavailable as error:
            logger.info("relay of %s prunes later: %s", self.source.alias, error)
            self._leftovers = True

    def _prune_leftovers(self) -> None:
        if self._leftovers and self._durable is not None:
            self._leftovers = False
            self.source.prune(self._durable, epoch=self.log.epoch)
