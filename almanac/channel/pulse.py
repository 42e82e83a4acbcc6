"""A thread that reads the gauge while somebody watches, and publishes what has changed."""

from __future__ import annotations

import logging
import threading
from time import perf_counter

from django.db import DatabaseError

from levada.errors import LevadaError

from .stores import Gauge, to_json
from .stream import Stream, stream
from .works import works

logger = logging.getLogger("almanac.channel")

EVERY_S = 0.25
REST = 4.0
"""Rest this many times as long as a reading took, so that watching stays cheap on big tables."""


class Pulse:
    """Runs from `start()` to `stop()`; idle while the stream has no readers."""

    def __init__(self, to: Stream) -> None:
        self.to = to
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="channel pulse", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End and wait for the end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        gauge = Gauge()
        try:
            last = None
            while not self._stop.is_set():
                if not self.to.has_readers.wait(EVERY_S):
                    last = None
                    continue
                started = perf_counter()
                state = self._look(gauge)
                if state is not None and state != last:
                    self.to.publish("stores", state)
                    last = state
                self._stop.wait(max(EVERY_S, REST * (perf_counter() - started)))
        finally:
            gauge.close()

    def _look(self, gauge: Gauge) -> dict | None:
        try:
            return to_json(gauge.read(), works.proof)
        except (LevadaError, DatabaseError) as error:
            # The replica may go away under our feet; the next look will see it.
            logger.warning("could not read the stores: %s", error)
            return None


pulse = Pulse(stream)
"""The one pulse of this process."""
