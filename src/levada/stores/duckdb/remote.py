"""A session on a database that another process of this machine has open."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb

from ... import errors
from ...errors import StoreBusy
from . import dbapi
from .connection import CHUNK_ROWS, Description, SessionGone
from .wire import PROTOCOL, Closed, NotPlain, Wire, peer

if TYPE_CHECKING:
    import pyarrow


def dial(path: str, addresses: Sequence[str], timeout_s: float) -> RemoteSession | None:
    """
    Return a session with the process that serves `path`, None where none does.

    Raises StoreBusy where one accepts but does not answer in `timeout_s`, and
    for a process of another user or of another version of Levada.
    """
    for address in addresses:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(address)
            return RemoteSession(path, connection, timeout_s)
        except BlockingIOError:  # its queue of callers is full
            connection.close()
            time.sleep(0.01)
        except (SessionGone, OSError) as error:
            connection.close()
            if isinstance(error, TimeoutError):
                raise _unanswered(path, None, timeout_s) from error
        except BaseException:
            connection.close()
            raise
    return None


class RemoteSession:
    """A session in the process that owns the file. Implements `connection.Session`."""

    def __init__(self, path: str, connection: socket.socket, timeout_s: float) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._wire = Wire(connection)
        self.owner_pid, uid = peer(connection)
        if uid != os.getuid():
            raise StoreBusy(
                f"{path} is served by process {self.owner_pid} of user id {uid}, but this is user "
                f"id {os.getuid()}. Run both as one user, or end that process."
            )
        self.defaults: dict[str, dict[str, str]] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._more = False
        self._dead = False
        version = self._ask(("hello", PROTOCOL))
        if version != PROTOCOL:
            self.close()
            raise StoreBusy(
                f"{path} is served by process {self.owner_pid}, which runs another version of "
                f"Levada (protocol {version}, here {PROTOCOL}). Restart it."
            )

    def run(
        self, sql: str, params: Any, arrow: Mapping[str, pyarrow.Table] | None, *, begin: bool
    ) -> tuple[Description, int]:
        """See `Session.run`; the first rows come with the answer."""
        tables = dict(arrow or {})
        described, counted, self._rows, self._more = self._ask(
            ("run", begin, sql, params, list(tables)), tables.values()
        )
        return described, counted

    def rows(self, limit: int | None) -> list[tuple[Any, ...]]:
        """See `Session.rows`."""
        while self._more and (limit is None or len(self._rows) < limit):
            wanted = CHUNK_ROWS if limit is None else max(limit - len(self._rows), CHUNK_ROWS)
            more, self._more = self._ask(("rows", wanted))
            self._rows += more
        if limit is None:
            rows, self._rows = self._rows, []
        else:
            rows, self._rows = self._rows[:limit], self._rows[limit:]
        return rows

    def arrow(self, sql: str, params: Any, *, begin: bool) -> pyarrow.Table:
        """See `Session.arrow`."""
        self._rows, self._more = [], False
        return self._ask(("arrow", begin, sql, params), table=True)

    def open_arrow(self, sql: str, params: Any, *, batch_rows: int, begin: bool) -> pyarrow.Schema:
        """See `Session.open_arrow`."""
        self._rows, self._more = [], False
        return self._ask(("open_arrow", begin, sql, params, batch_rows), table=True).schema

    def next_arrow(self) -> pyarrow.RecordBatch | None:
        """See `Session.next_arrow`; the owner reads a batch when it is asked for one."""
        table = self._ask(("next_arrow",), table=True)
        return table.combine_chunks().to_batches()[0] if table.num_rows else None

    def begin(self) -> None:
        """Begin a transaction."""
        self._ask(("begin",))

    def commit(self) -> None:
        """Commit the transaction."""
        self._ask(("commit",))

    def rollback(self) -> None:
        """Roll the transaction back."""
        self._ask(("rollback",))

    def restart(self) -> None:
        """See `Session.restart`."""
        self._ask(("restart",))

    def delete(self, grace_s: float) -> None:
        """Ask the owner to close the database and delete its files."""
        self._wire.socket.settimeout(self._timeout_s + grace_s)
        self._ask(("delete", grace_s))

    def take(self, grace_s: float) -> int:
        """Ask the owner for the file; returns the lock's file descriptor, open in this process."""
        self._wire.socket.settimeout(self._timeout_s + grace_s)
        self._ask(("handover", grace_s))
        _, descriptors, _, _ = socket.recv_fds(self._wire.socket, 1, 1)
        if not descriptors:
            raise SessionGone(self.path, sent=True)
        return descriptors[0]

    def alive(self) -> bool:
        """Ask the owner whether it is there."""
        try:
            self._ask(("ping",))
        except (duckdb.Error, errors.StoreError):
            return False
        return True

    def gone(self) -> bool:
        """Say whether the owner has hung up."""
        return self._dead or self._wire.hung_up()

    def close(self) -> None:
        """Hang up; the owner rolls back what is open."""
        self._dead = True
        self._wire.close()

    def _ask(self, message: Any, tables: Any = (), *, table: bool = False) -> Any:
        """Send a request and return its answer. Raises what the owner raised, SessionGone."""
        if self._dead:
            raise SessionGone(self.path, sent=False)
        sent = False
        try:
            self._wire.send(message)
            sent = True
            for each in tables:
                self._wire.send_table(each)
            answer = self._wire.receive_table() if table else self._wire.receive()
        except Closed as error:
            self.close()
            raise SessionGone(self.path, sent=sent) from error
        except TimeoutError as error:
            self.close()
            raise _unanswered(self.path, self.owner_pid, self._timeout_s) from error
        except BaseException:
            self.close()  # half an answer may be left on the wire
            raise
        if not isinstance(answer, tuple):
            return answer
        kind, *rest = answer
        if kind == "gone":
            self.close()
            raise SessionGone(self.path, sent=False)
        if kind == "error":
            raise _rebuilt(*rest)
        return rest[0]


def failure_message(error: BaseException) -> tuple[str, str, str]:
    """Return the message that carries `error` to the client."""
    return ("error", type(error).__name__, str(error))


def _rebuilt(name: str, text: str) -> Exception:
    """Make the owner's exception again, by its name."""
    for module in (duckdb, errors, dbapi):
        kind = getattr(module, name, None)
        if isinstance(kind, type) and issubclass(kind, (duckdb.Error, errors.LevadaError)):
            return kind(text)
    if name == NotPlain.__name__:
        return duckdb.DataError(text)
    return duckdb.OperationalError(f"{name}: {text}")


def _unanswered(path: str, pid: int | None, timeout_s: float) -> StoreBusy:
    who = "another process" if pid is None else f"process {pid}"
    act = "it" if pid is None else f"it (kill -CONT {pid}) or end it (kill {pid})"
    return StoreBusy(
        f"{path} is open in {who}, which has given no sign of life for {timeout_s:g} s; it may be "
        f"stopped or overloaded. Wake {act}: another process then takes the file over by itself."
    )
