"""
Keeps one part running: in a thread of its own, opened again with backoff after a failure.

    starting ──► running ──► stopped
        ▲           │
        └─ waiting ◄┘   the part failed and is opened again in `backoff_s`
        └─ halted  ◄┘   only a person can help; looked at again every HALTED_S

A part that ran for STEADY_S begins again with the shortest backoff.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from django.db import connections

from ..errors import (
    ConfigurationError,
    ForeignPosition,
    LogCorrupt,
    PoisonRecord,
    PositionLost,
    SchemaDrift,
    StoreUnreadable,
)
from .logs import THREAD_PREFIX

logger = logging.getLogger("levada.keeper")

STARTING, RUNNING, WAITING, HALTED, STOPPED = "starting", "running", "waiting", "halted", "stopped"

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 30.0
HALTED_S = 30.0
STEADY_S = 60.0
REPORT_S = 10.0

PERSON_NEEDED = (
    ConfigurationError,
    ForeignPosition,
    LogCorrupt,
    PoisonRecord,
    PositionLost,
    SchemaDrift,
    StoreUnreadable,
)
"""Trying again quickly helps none of these; once the cause is gone, the part goes on by itself."""


class Runner(Protocol):
    """
    What a part is: something that works until `stop` is set, or raises.

    May have a `step()`, whose returned records are counted, and an `error`,
    what it is trying again after by itself, None while all is well.
    """

    def run(self, stop: threading.Event) -> None: ...


@dataclass(frozen=True, slots=True)
class PartSpec:
    """A part by name (`relay`, `apply:analytics`, …) and how to open what it runs."""

    name: str
    open: Callable[[], AbstractContextManager[Runner]]


@dataclass(frozen=True, slots=True)
class PartStatus:
    """
    One part at one moment.

    since_s: seconds since the state was entered. restarts: how often it was
    opened again. error: the last failure's message, '' once it runs again.
    records, batches: worked on since the keeper started.
    """

    name: str
    state: str
    since_s: float
    restarts: int = 0
    error: str = ""
    records: int = 0
    batches: int = 0

    @property
    def up(self) -> bool:
        """Say whether the part is at work."""
        return self.state in (STARTING, RUNNING)


def backoff_s(failures: int) -> float:
    """Return how long to wait after the nth failure in a row, n from 1."""
    return float(min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (failures - 1)))


class Part:
    """One supervised part. `status()` may be asked from any thread."""

    def __init__(self, spec: PartSpec, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.spec = spec
        self.name = spec.name
        self._clock = clock
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._status = PartStatus(spec.name, STOPPED, 0.0)
        self._entered_at = clock()
        self._reported, self._reported_at = self._status, clock()
        self._thread: threading.Thread | None = None
        self._runner: Any = None

    def start(self) -> None:
        """Begin in a thread of its own; a part is started once."""
        self._enter(STARTING)
        # Daemon: a handler that never returns must not keep a stopped process alive.
        self._thread = threading.Thread(target=self._supervise, name=THREAD_PREFIX + self.name)
        self._thread.daemon = True
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Ask the part to end after its running batch."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; False if the part still runs after `timeout_s`."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def status(self) -> PartStatus:
        """Return what the part does now; one that tries again by itself is waiting, too."""
        with self._guard:
            now = replace(self._status, since_s=self._clock() - self._entered_at)
            trouble = getattr(self._runner, "error", None)
        if now.state != RUNNING or trouble is None:
            return now
        state = HALTED if isinstance(trouble, PERSON_NEEDED) else WAITING
        return replace(now, state=state, error=str(trouble) or type(trouble).__name__)

    def _supervise(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began_at = self._clock()
            try:
                self._work()
            except Exception as error:
                if self._clock() - began_at >= STEADY_S:
                    failures = 0
                failures += 1
                self._wait_after(error, failures)
            finally:
                connections.close_all()  # of this thread: the next attempt begins afresh
        self._enter(STOPPED)
        logger.info("stopped", extra={"part": self.name})

    def _work(self) -> None:
        with self.spec.open() as runner:
            self._count(runner)
            self._runner = runner
            self._enter(RUNNING, error="")
            logger.info("running", extra={"part": self.name})
            try:
                runner.run(self._stop)
            finally:
                self._runner = None
        if not self._stop.is_set():
            raise RuntimeError(f"{self.name} ended although nobody asked it to.")

    def _wait_after(self, error: Exception, failures: int) -> None:
        halted = isinstance(error, PERSON_NEEDED)
        pause_s = HALTED_S if halted else backoff_s(failures)
        message = str(error) or type(error).__name__
        self._enter(HALTED if halted else WAITING, error=message)
        logger.error(
            "%s; next try in %.1f s",
            message,
            pause_s,
            # What we raise on purpose says all in its message; a bug needs its traceback.
            exc_info=None if _expected(error) else error,
            extra={"part": self.name, "error": type(error).__name__, "next_try_s": pause_s},
        )
        if not self._stop.wait(pause_s):
            with self._guard:
                self._status = replace(self._status, restarts=self._status.restarts + 1)

    def _enter(self, state: str, **changes: Any) -> None:
        with self._guard:
            self._status = replace(self._status, state=state, **changes)
            self._entered_at = self._clock()

    def _count(self, runner: Any) -> None:
        """Count what each `step()` of the runner returns."""
        step = getattr(runner, "step", None)
        if step is None:
            return

        def counted(*args: Any, **kwargs: Any) -> int:
            records = int(step(*args, **kwargs))
            if records:
                with self._guard:
                    self._status = replace(
                        self._status,
                        records=self._status.records + records,
                        batches=self._status.batches + 1,
                    )
            self._report()
            return records

        runner.step = counted

    def _report(self) -> None:
        """Log what was done since the last line, every REPORT_S at most."""
        now, done = self._clock(), self._status
        records = done.records - self._reported.records
        if not records or now - self._reported_at < REPORT_S:
            return
        batches = done.batches - self._reported.batches
        self._reported, self._reported_at = done, now
        logger.info(
            "%s in %s",
            f"{records:,} record" + "s" * (records != 1),
            f"{batches:,} batch" + "es" * (batches != 1),
            extra={"part": self.name, "records": records, "batches": batches},
        )


def _expected(error: Exception) -> bool:
    from django.db import DatabaseError, InterfaceError

    from ..errors import LevadaError

    return isinstance(error, (LevadaError, DatabaseError, InterfaceError, OSError))
