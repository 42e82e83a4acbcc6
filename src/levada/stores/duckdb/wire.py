"""
What two processes say to each other over a socket: frames of plain values and of Arrow.

A frame is one byte of kind, eight bytes of length, then its body: a pickled
message, one Arrow IPC stream, or nothing for a heartbeat. Pickle is quick for
rows of mixed types, but would run whatever it is told to: `_PlainUnpickler`
admits the types of `PLAIN` and nothing else.
"""

from __future__ import annotations

import io
import pickle
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

PROTOCOL = 2
"""Raised whenever a message changes its meaning; both sides must have the same."""

HEARTBEAT_S = 0.5
"""How often a server at work on a long statement says that it lives."""

BATCH_ROWS = 65_536
"""Rows of Arrow in one frame."""

PLAIN = frozenset(
    {
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("decimal", "Decimal"),
        ("uuid", "UUID"),
        ("uuid", "SafeUUID"),
    }
)
"""What a message may contain beside None, numbers, text, bytes, tuples, lists, dicts and sets."""

_MESSAGE, _ARROW, _HEARTBEAT = 1, 2, 3
_HEAD = struct.Struct("!BQ")
_PEERCRED = struct.Struct("3i")


class NotPlain(pickle.UnpicklingError):
    """A message holds something that is no plain value."""


class Closed(ConnectionError):
    """The other side went away."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return one of the admitted types. Raises NotPlain."""
        if (module, name) in PLAIN:
            return super().find_class(module, name)
        raise NotPlain(f"{module}.{name} is no plain value")


def pack(message: Any) -> bytes:
    """Write a message."""
    return pickle.dumps(message, protocol=5)


def unpack(body: Any) -> Any:
    """Read a message. Raises NotPlain."""
    return _PlainUnpickler(io.BytesIO(body)).load()


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return the process and user id of the other side, as the kernel tells them."""
    size = _PEERCRED.size
    pid, uid, _ = _PEERCRED.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid


class Wire:
    """
    One end of a connection. Raises Closed when the other end is gone.

    A socket's timeout, where it has one, limits silence, not the length of
    the answer: heartbeats and each piece of a frame count as a sign of life.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Send one message."""
        with self._sending:
            self._send(_MESSAGE, pack(message))

    def send_table(self, table: pyarrow.Table) -> None:
        """Send a table in frames of up to `BATCH_ROWS` rows, then the end."""
        self.send_batches(table.schema, iter(table.to_batches(max_chunksize=BATCH_ROWS)))

    def send_batches(self, schema: Any, batches: Iterator[Any]) -> None:
        """Send batches as they come, each in its frame, then the end."""
        import pyarrow

        with self._sending:
            self._send(_ARROW, _stream(pyarrow, schema, None))
        for batch in batches:
            with self._sending:
                self._send(_ARROW, _stream(pyarrow, schema, batch))
        self.send(None)

    def heartbeat(self, wanted: Callable[[], bool]) -> None:
        """Say that this side lives, if `wanted` still and it is not sending anything anyway."""
        if self._sending.acquire(blocking=False):
            try:
                if wanted():
                    with suppress(OSError):
                        self.socket.send(_HEAD.pack(_HEARTBEAT, 0), socket.MSG_DONTWAIT)
            finally:
                self._sending.release()

    def receive(self) -> Any:
        """Return the next message. Raises NotPlain, TimeoutError."""
        kind, body = self._receive()
        if kind != _MESSAGE:
            raise NotPlain("a message was expected, Arrow came")
        return unpack(body)

    def receive_table(self) -> Any:
        """Return the table that the other side sends; an error message instead is returned."""
        import pyarrow

        parts: list[Any] = []
        while True:
            kind, body = self._receive()
            if kind == _MESSAGE:
                message = unpack(body)
                return message if message is not None else pyarrow.concat_tables(parts)
            with pyarrow.ipc.open_stream(pyarrow.py_buffer(body)) as stream:
                parts.append(stream.read_all())

    def hung_up(self) -> bool:
        """Say whether the other side has left, or said that it will, while nothing was asked."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close this end."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _send(self, kind: int, body: Any) -> None:
        try:
            self._send_all(_HEAD.pack(kind, len(body)))
            self._send_all(body)
        except (BrokenPipeError, ConnectionResetError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise Closed(str(error)) from error

    def _send_all(self, body: Any) -> None:
        left = memoryview(body)
        while left:  # not sendall: its timeout is for the whole, ours for silence
            left = left[self.socket.send(left) :]

    def _receive(self) -> tuple[int, Any]:
        while True:
            kind, length = _HEAD.unpack(self._receive_all(_HEAD.size))
            body = self._receive_all(length)
            if kind != _HEARTBEAT:
                return kind, body

    def _receive_all(self, length: int) -> bytearray:
        body = bytearray(length)
        left = memoryview(body)
        while left:
            try:
                count = self.socket.recv_into(left)
            except TimeoutError:
                raise
            except OSError as error:
                raise Closed(str(error)) from error
            if not count:
                raise Closed("end of stream")
            left = left[count:]
        return body


def _stream(pyarrow: Any, schema: Any, batch: Any) -> Any:
    """Write one batch, or the schema alone, as a complete IPC stream."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, schema) as writer:
        if batch is not None:
            writer.write_batch(batch)
    return sink.getvalue()
