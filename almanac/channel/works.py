"""
What the page's buttons set going: delete the replica, rebuild it, verify it; one at a time.

Each runs in a thread of its own and tells the stream how far it is. `proof`
is what the last verification found.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from django.db import connections

from levada.apply import rebuild
from levada.keeper.verified import verify_and_remember
from levada.stores.duckdb import ownership

from . import keeping
from .places import REPLICA, gate
from .stream import stream

logger = logging.getLogger("almanac.channel")

Progress = Callable[[str, int, int], None]
"""Told a table's label, the rows done and the rows there are."""

PROGRESS_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work and how far it is; `done` and `total` count rows."""

    name: str
    stage: str
    done: int = 0
    total: int = 0
    ended: bool = False
    failed: bool = False

    def to_json(self) -> dict[str, Any]:
        """What the page shows; the texts are finished."""
        rows = f"{self.done:,} of {self.total:,} rows" if self.total and not self.ended else ""
        return {
            "name": self.name,
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "rows": rows,
            "ended": self.ended,
            "failed": self.failed,
        }


@dataclass(frozen=True, slots=True)
class Proof:
    """
    What one verification found.

    offset: the log position both sides stood at. undecided: why nothing can
    be said, '' if all was compared.
    """

    equal: bool
    offset: int
    rows: int
    differences: int
    undecided: str
    took_s: float
    at: datetime

    @property
    def words(self) -> str:
        """The finding in a sentence."""
        if self.equal:
            return f"verified ✓ {self.rows:,} rows equal, compared in {self.took_s:.1f} s"
        return self.undecided or f"{self.differences:,} rows differ"


class Busy(Exception):
    """Another piece of work is not done yet."""


class Works:
    """The work that goes on, and the last proof."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last_told = 0.0
        self.work: Work | None = None
        self.proof: Proof | None = None

    @property
    def busy(self) -> bool:
        """Say whether something goes on."""
        return self._thread is not None and self._thread.is_alive()

    def delete(self) -> None:
        """Pause the applier and delete the replica's file. Raises Busy."""
        self._start("delete", self._delete)

    def rebuild(self) -> None:
        """Build the replica again from the source and verify it. Raises Busy."""
        self._start("rebuild", self._rebuild)

    def verify(self) -> None:
        """Compare source and replica row by row. Raises Busy."""
        self._start("verify", self._verify)

    def wait(self) -> None:
        """Return when nothing goes on any more."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def prove(self, progress: Progress | None = None) -> Proof:
        """Verify the replica in the calling thread and keep the proof, in the database too."""
        found = verify_and_remember(REPLICA, progress=progress or self._progress)
        self.proof = Proof(
            equal=found.equal,
            offset=found.position.offset if found.position else 0,
            rows=sum(table.store_rows for table in found.tables),
            differences=found.different,
            undecided=found.undecided or "",
            took_s=found.seconds,
            at=datetime.now(UTC),
        )
        return self.proof

    def _delete(self) -> str:
        self._tell("Deleting the replica's file")
        keeping.pause()
        gate.close()
        self.proof = None
        ownership.delete_file(REPLICA)
        return "The replica is gone. The source goes on; its changes wait in the log."

    def _rebuild(self) -> str:
        self._tell("Rebuilding from the source")
        started = perf_counter()
        rebuild(REPLICA, progress=self._progress)
        gate.open()
        keeping.resume()
        built_s = perf_counter() - started
        return f"Rebuilt in {built_s:.1f} s. {self._verify()}"

    def _verify(self) -> str:
        self._tell("Comparing every row of both databases")
        with gate.reading():
            return self.prove().words

    def _start(self, name: str, task: Callable[[], str]) -> None:
        with self._guard:
            if self.busy:
                raise Busy
            self.work = Work(name, "")
            self._thread = threading.Thread(
                target=self._run, args=(task,), name=f"channel {name}", daemon=True
            )
            self._thread.start()

    def _run(self, task: Callable[[], str]) -> None:
        try:
            ending, failed = task(), False
        except Exception as error:  # a person is watching: the page must say it
            logger.exception("could not %s the replica", self._current().name)
            ending, failed = str(error) or type(error).__name__, True
        finally:
            connections.close_all()
        differs = self.proof is not None and not self.proof.equal
        failed = failed or differs
        self._say(replace(self._current(), stage=ending, ended=True, failed=failed))

    def _tell(self, stage: str) -> None:
        if self.work is not None:
            self._say(replace(self.work, stage=stage, done=0, total=0))

    def _progress(self, label: str, done: int, total: int) -> None:
        if self.work is None or self.work.ended:
            return
        now = perf_counter()
        self.work = replace(self.work, done=done, total=total)
        if now - self._last_told >= PROGRESS_EVERY_S or done >= total:
            self._last_told = now
            self._say(self.work)

    def _current(self) -> Work:
        assert self.work is not None
        return self.work

    def _say(self, work: Work) -> None:
        self.work = work
        stream.publish("work", work.to_json())


works = Works()
"""The works of this process."""
