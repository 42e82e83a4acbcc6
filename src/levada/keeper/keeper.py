"""
The keeper: relay, appliers, handlers and retention as supervised parts of one process.

    keeper = Keeper()
    keeper.run()                # a process of its own, until SIGTERM or SIGINT

    keeper = Keeper()
    keeper.start(); …; keeper.stop()    # inside another process, an ASGI server's
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from types import EllipsisType, FrameType
from typing import TYPE_CHECKING

from ..conf import settings
from .health import HealthServer
from .locks import LockFor, PartLock
from .supervisor import Part, PartSpec, PartStatus

if TYPE_CHECKING:
    from .status import Status

logger = logging.getLogger("levada.keeper")

WAKE_S = 0.2


class Keeper:
    """
    Runs parts until it is told to stop.

    only: names of parts (`relay`, `apply`, `apply:analytics`, `handlers`,
        `handlers:group`, `retention`); None for all that the settings give.
    health_port: where /healthz and /metrics answer, 0 for a free port, None
        for nowhere; without it LEVADA["HEALTH_PORT"].
    parts, locks: replace what the settings give, for tests and other parts.

    Raises ConfigurationError for a name in `only` that is no part.
    """

    def __init__(
        self,
        only: Iterable[str] | None = None,
        *,
        health_port: int | EllipsisType | None = ...,
        parts: Sequence[PartSpec] | None = None,
        locks: LockFor | None = None,
    ) -> None:
        from . import parts as known

        self.specs = known.choose(known.part_specs() if parts is None else parts, only)
        self._lock_for = locks or known.lock_for
        self._health_port: int | None = (
            settings.HEALTH_PORT if isinstance(health_port, EllipsisType) else health_port
        )
        self._parts: list[Part] = []
        self._locks: dict[str, PartLock] = {}
        self._health: HealthServer | None = None
        # A SimpleQueue's put() is reentrant; an Event.set() in a signal handler can deadlock.
        self._told_to_stop: SimpleQueue[None] = SimpleQueue()

    @property
    def health_port(self) -> int | None:
        """The port that answers, None while none does."""
        return self._health.port if self._health else None

    def start(self) -> None:
        """
        Start every part and return.

        Raises AlreadyRunning, having started nothing, if another process (or
        another keeper of this one) has one of the parts; OSError if the
        health port is taken.
        """
        try:
            for spec in self.specs:
                lock = self._lock_for(spec.name)
                if lock is not None:
                    lock.acquire()
                    self._locks[spec.name] = lock
            if self._health_port is not None:
                self._health = HealthServer(
                    self._health_port, parts=self.parts, exposition=self._exposition
                )
        except BaseException:
            self._release(self._locks)
            raise
        self._parts = [Part(spec) for spec in self.specs]
        for part in self._parts:
            part.start()
        if self._health:
            self._health.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """
        Let every part finish its running batch; say whether all ended within `timeout_s`.

        None takes LEVADA["STOP_S"]. The lock of a part that did not end is
        kept until the process ends, so that nobody works beside it.
        """
        give_up_at = time.monotonic() + (settings.STOP_S if timeout_s is None else timeout_s)
        for part in self._parts:
            part.ask_to_stop()
        late = [
            part.name
            for part in self._parts
            if not part.join(max(0, give_up_at - time.monotonic()))
        ]
        for name in late:
            logger.error("did not end in time", extra={"part": name})
        if self._health:
            self._health.stop()
            self._health = None
        self._release([name for name in self._locks if name not in late])
        return not late

    def run(self) -> bool:
        """
        Start, wait for SIGTERM or SIGINT, stop; say whether every part ended in time.

        To be called in the main thread. A second signal acts as if the keeper
        were not there: it ends the process at once. Raises as `start()`.
        """
        self._told_to_stop = SimpleQueue()
        before = {each: signal.signal(each, self._on_signal) for each in _SIGNALS}
        try:
            self.start()
            logger.info("keeping %s", ", ".join(spec.name for spec in self.specs))
            self._wait_to_be_told()
            logger.info("stopping: each part ends with the batch it is in")
            return self.stop()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def ask_to_stop(self) -> None:
        """Make `run()` stop and return, from any thread."""
        self._told_to_stop.put(None)

    def _wait_to_be_told(self) -> None:
        """
        Wait for `ask_to_stop()` or a signal.

        A signal that comes just before a wait without a limit begins would
        not wake it: its Python handler runs only when the wait is over.
        """
        while True:
            try:
                return self._told_to_stop.get(timeout=WAKE_S)
            except Empty:
                continue

    def parts(self) -> list[PartStatus]:
        """Return what each part does now."""
        return [part.status() for part in self._parts]

    def status(self) -> Status:
        """Return the `Status` of source, log and stores, with this keeper's parts in it."""
        from .status import read_status

        return read_status(self._kept_stores(), parts=self.parts())

    def _kept_stores(self) -> list[str]:
        return [
            spec.name.partition(":")[2] for spec in self.specs if spec.name.startswith("apply:")
        ]

    def _exposition(self) -> str:
        from .exposition import families
        from .metrics import render

        return render(families(self.status()))

    def _release(self, names: Iterable[str]) -> None:
        for name in list(names):
            self._locks.pop(name).release()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # No logging here: the signal may have interrupted a call that holds logging's lock.
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self._told_to_stop.put(None)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
