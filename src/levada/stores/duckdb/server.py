"""
The owner's side: one thread and one DuckDB connection for each client.

A further thread listens, sends heartbeats for statements that take long, and
interrupts the statement of a client that has hung up.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from ...errors import LevadaError
from .connection import CHUNK_ROWS, SessionGone
from .instance import Instance, LocalSession
from .remote import failure_message
from .wire import BATCH_ROWS, HEARTBEAT_S, PROTOCOL, Closed, NotPlain, Wire, peer

_BACKLOG = 128

_TOLD = (duckdb.Error, LevadaError, TypeError, ValueError, LookupError, ArithmeticError)
"""What a statement or its values can be at fault for: told to the client, who goes on."""

Release = Callable[["Client", float, bool], int]
"""Closes the database for a client: (client, grace in seconds, delete the file) -> lock's fd."""


class Server:
    """Serves one instance at the first of `addresses` that can be bound. Raises OSError."""

    def __init__(self, instance: Instance, addresses: Sequence[str], release: Release) -> None:
        self.instance = instance
        self.release = release
        self.address, self._listener = _listen(addresses)
        self._clients: set[Client] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread = threading.Thread(
            target=self._watch, name=f"levada-serve-{Path(instance.path).name}", daemon=True
        )
        self._thread.start()

    def unlist(self) -> None:
        """Take the address away: whoever comes now finds nobody, and asks for the lock."""
        Path(self.address).unlink(missing_ok=True)

    def stop(self, *, but: Client | None = None) -> None:
        """Tell every client, except `but`, that the database is gone, and stop listening."""
        self.unlist()
        self._stopping = True
        os.write(self._wake_writer, b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._listener.close()
        for descriptor in (self._wake_reader, self._wake_writer):
            os.close(descriptor)
        with self._lock:
            clients = [client for client in self._clients if client is not but]
        for client in clients:
            client.dismiss()

    def abandon(self) -> None:
        """Close this process's copies of the sockets: a fork's child must not hold them open."""
        self._listener.close()
        for descriptor in (self._wake_reader, self._wake_writer):
            os.close(descriptor)
        for client in list(self._clients):
            client.wire.socket.close()

    def gone(self, client: Client) -> None:
        """Note that a client's thread ends."""
        with self._lock:
            self._clients.discard(client)

    def _watch(self) -> None:
        """Accept clients and look after those at work, until stopped."""
        while not self._stopping:
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            poll.register(self._wake_reader, select.POLLIN)
            with self._lock:
                working = {client.fileno: client for client in self._clients if client.working}
            for descriptor in working:
                poll.register(descriptor, select.POLLRDHUP)
            events = dict(poll.poll(HEARTBEAT_S * 1000))
            for descriptor, client in working.items():
                if events.get(descriptor, 0) & (select.POLLRDHUP | select.POLLHUP):
                    client.interrupt()
                else:
                    client.wire.heartbeat(client.is_working)
            if self._listener.fileno() in events and not self._stopping:
                self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # Nothing can be accepted before a client leaves; do not spin meanwhile.
                select.select([self._wake_reader], [], [], HEARTBEAT_S)
            return
        if peer(connection)[1] != os.getuid():
            connection.close()
            return
        client = Client(self, connection)
        with self._lock:
            self._clients.add(client)
        client.start()


class Client(threading.Thread):
    """One client's connection, session and thread."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        super().__init__(name="levada-client", daemon=True)
        self.server = server
        self.wire = Wire(connection)
        self.fileno = connection.fileno()
        self.working = False
        self._dismissed = False
        self._turn = threading.Lock()
        self._session: LocalSession | None = None
        self._schema: Any = None

    def run(self) -> None:
        """Answer requests until the client leaves or is dismissed."""
        try:
            while self._serve_one():
                pass
        except (Closed, NotPlain, OSError):
            pass  # a client that left, or that sent what is no request
        finally:
            self.server.gone(self)
            if self._session is not None:
                self._session.close()
            self.wire.close()

    def is_working(self) -> bool:
        """Say whether the client waits for an answer."""
        return self.working

    def dismiss(self) -> None:
        """Tell the client that the database is gone; one at work is told by its answer."""
        with self._turn:
            self._dismissed = True
            if not self.working:
                with suppress(Closed, OSError):
                    self.wire.send(("gone",))
        with suppress(OSError):
            self.wire.socket.shutdown(socket.SHUT_RD)

    def interrupt(self) -> None:
        """Stop the running statement: nobody waits for it any more."""
        if self._session is not None:
            self._session.interrupt()

    def _serve_one(self) -> bool:
        try:
            request = self.wire.receive()
        except NotPlain as error:
            self.wire.send(failure_message(error))
            return False
        with self._turn:
            if self._dismissed:
                return False
            self.working = True
        try:
            send = self._answer(request, self._receive_tables(request))
        except SessionGone:
            send = partial(self.wire.send, ("gone",))
        except _TOLD as error:
            send = partial(self.wire.send, failure_message(error))
        self.working = False
        send()
        return not self._dismissed

    def _receive_tables(self, request: Any) -> dict[str, Any]:
        if request[0] != "run":
            return {}
        return {name: self.wire.receive_table() for name in request[4]}

    def _answer(self, request: Any, tables: dict[str, Any]) -> Callable[[], None]:
        """Do what is asked; returns what sends the answer."""
        kind, *rest = request
        if kind == "arrow":
            return self._answer_arrow(*rest)
        if kind == "open_arrow":
            return self._answer_batches(self._open_arrow(*rest), None)
        if kind == "next_arrow":
            return self._answer_batches(*self._next_arrow())
        if kind in ("handover", "delete"):
            return self._answer_release(kind, *rest)
        value = (
            _ANSWERS[kind](self, *rest[:3], tables)
            if kind == "run"
            else _ANSWERS[kind](self, *rest)
        )
        return lambda: self.wire.send(("ok", value))

    def _open(self) -> LocalSession:
        if self._session is None:
            self._session = self.server.instance.session()
        return self._session

    def _run(self, begin: bool, sql: str, params: Any, tables: dict[str, Any]) -> Any:
        session = self._open()
        described, counted = session.run(sql, params, tables, begin=begin)
        rows: list[Any] = [] if described is None else session.rows(CHUNK_ROWS)
        return described, counted, rows, len(rows) == CHUNK_ROWS

    def _more_rows(self, limit: int) -> Any:
        rows = self._open().rows(limit)
        return rows, len(rows) == limit

    def _answer_arrow(self, begin: bool, sql: str, params: Any) -> Callable[[], None]:
        """Send batches as DuckDB makes them, so that neither side holds more than a few twice."""
        with self._open().arrow_reader(sql, params, begin=begin, batch_rows=BATCH_ROWS) as reader:
            self.working = False  # each batch is a sign of life
            self.wire.send_batches(reader.schema, iter(reader))
        return lambda: None

    def _open_arrow(self, begin: bool, sql: str, params: Any, batch_rows: int) -> Any:
        self._schema = self._open().open_arrow(sql, params, batch_rows=batch_rows, begin=begin)
        return self._schema

    def _next_arrow(self) -> tuple[Any, Any]:
        return self._schema, self._open().next_arrow()

    def _answer_batches(self, schema: Any, batch: Any) -> Callable[[], None]:
        """Send one batch, or the schema alone where there is none."""
        return lambda: self.wire.send_batches(schema, iter(() if batch is None else (batch,)))

    def _answer_release(self, kind: str, grace_s: float) -> Callable[[], None]:
        lock = self.server.release(self, grace_s, kind == "delete")
        self._dismissed = True

        def send() -> None:
            try:
                self.wire.send(("ok", None))
                if kind == "handover":
                    socket.send_fds(self.wire.socket, [b"x"], [lock])
            finally:
                os.close(lock)

        return send


def _hello(client: Client, protocol: int) -> int:
    if protocol == PROTOCOL:
        client._open()
    return PROTOCOL


def _ping(client: Client) -> None:
    client._open().run("SELECT 1", None, None, begin=False)


_ANSWERS: dict[str, Callable[..., Any]] = {
    "hello": _hello,
    "ping": _ping,
    "run": Client._run,
    "rows": Client._more_rows,
    "begin": lambda client: client._open().begin(),
    "commit": lambda client: client._open().commit(),
    "rollback": lambda client: client._open().rollback(),
    "restart": lambda client: client._open().restart(),
}
"""Requests that are answered with one plain value."""


def _listen(addresses: Sequence[str]) -> tuple[str, socket.socket]:
    """Bind the first address that takes it, readable by this user alone. Raises OSError."""
    failed: OSError | None = None
    for address in addresses:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            Path(address).unlink(missing_ok=True)  # a dead owner's: we hold the lock
            listener.bind(address)
            os.chmod(address, 0o600)
            listener.listen(_BACKLOG)
            listener.setblocking(True)
        except OSError as error:
            listener.close()
            failed = error
        else:
            return address, listener
    raise failed or OSError("there is no address to listen at")
