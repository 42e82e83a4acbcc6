"""
One stream of server-sent events for every open page.

Each message is encoded once and kept in a ring; a page that reconnects says
which one it saw last (`Last-Event-ID`) and gets what it missed. A page that
does not read is let go when its queue is full: it will come back and catch up.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

KEPT_MESSAGES = 256
WAITING_MESSAGES = 64
STATES = ("stores", "work")
"""Events that tell a whole state, so the latest one is enough."""
HEARTBEAT_S = 15.0
"""Proxies close a silent connection after 30 to 60 s; a comment line keeps it open."""


@dataclass(frozen=True, slots=True)
class Message:
    """One encoded event and its number, counted from 1."""

    number: int
    encoded: bytes


class Reader:
    """One open page: a bounded queue in the page's own event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[Message | None] = asyncio.Queue(WAITING_MESSAGES)

    def offer(self, message: Message | None) -> None:
        """Put `message` into the queue from any thread; None ends the stream."""
        try:
            self.loop.call_soon_threadsafe(self._put, message)
        except RuntimeError:  # the loop was closed with its page
            return

    def _put(self, message: Message | None) -> None:
        if self.queue.full():  # nobody reads: end here, the page comes back and catches up
            while not self.queue.empty():
                self.queue.get_nowait()
            message = None
        self.queue.put_nowait(message)


class Stream:
    """Publishes from any thread to every reader; `has_readers` tells whether it is worth it."""

    def __init__(self) -> None:
        # Numbers begin again with each process; the name keeps old ones from matching.
        self.name = secrets.token_hex(4)
        self.closed = False
        self.has_readers = threading.Event()
        self._guard = threading.Lock()
        self._kept: deque[Message] = deque(maxlen=KEPT_MESSAGES)
        self._latest: dict[str, Message] = {}
        self._readers: set[Reader] = set()
        self._number = 0

    def publish(self, event: str, data: dict[str, Any]) -> None:
        """Send `data` as JSON to every reader under the name `event`."""
        with self._guard:
            self._number += 1
            text = f"id: {self.name}-{self._number}\nevent: {event}\ndata: {json.dumps(data)}\n\n"
            message = Message(self._number, text.encode())
            self._kept.append(message)
            self._latest[event] = message
            readers = list(self._readers)
        for reader in readers:
            reader.offer(message)

    async def read(self, last_event_id: str = "") -> AsyncIterator[bytes]:
        """
        Yield encoded messages until the reader goes or the stream closes.

        Begins with what came after `last_event_id`, as far as it is kept; a new
        page begins with the latest of each event in STATES.
        """
        reader, missed = self._enter(last_event_id)
        try:
            yield b"retry: 1000\n\n"
            for message in missed:
                yield message.encoded
            while True:
                try:
                    next_message = await asyncio.wait_for(reader.queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if next_message is None:
                    return
                yield next_message.encoded
        finally:
            self._leave(reader)

    def close(self) -> None:
        """End every reader's stream, so that the server can stop at once."""
        with self._guard:
            self.closed = True
            readers = list(self._readers)
        for reader in readers:
            reader.offer(None)

    def _enter(self, last_event_id: str) -> tuple[Reader, list[Message]]:
        reader = Reader()
        name, _, number = last_event_id.rpartition("-")
        with self._guard:
            if self.closed:
                reader.queue.put_nowait(None)
            self._readers.add(reader)
            self.has_readers.set()
            if name != self.name or not number.isdecimal():
                return reader, [self._latest[event] for event in STATES if event in self._latest]
            return reader, [message for message in self._kept if message.number > int(number)]

    def _leave(self, reader: Reader) -> None:
        with self._guard:
            self._readers.discard(reader)
            if not self._readers:
                self.has_readers.clear()


stream = Stream()
"""The one stream of this process."""
