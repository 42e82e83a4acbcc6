"""
Who has the database file open.

DuckDB lets one process open a file for writing and no other open it at all.
The first process that wants the database takes a lock, opens the file and
serves all others over a socket (`server.py`, `remote.py`); when it ends, the
next that asks takes over, and DuckDB replays the WAL. Beside FILE lie
`FILE.lock` (held with flock by the owner, its process id inside) and
`FILE.sock`. Where a socket cannot lie there, because the path is longer than
107 bytes or the file system has no sockets, it lies in a directory of this
user's own, `levada-UID` in the directory for temporary files.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from ...errors import StoreBusy, StoreMissing
from .access import NOTHING, Access
from .connection import Connection, Session, SessionGone
from .ducklake.lake import Lake
from .failures import unreachable
from .instance import Instance
from .remote import dial
from .server import Client, Server

logger = logging.getLogger("levada.stores.duckdb")

TIMEOUT_S = 30.0
"""How long an owner may be silent before its clients give up, unless OPTIONS says otherwise."""

EXIT_GRACE_S = 2.0
"""How long an ending owner waits for its clients' transactions."""

_ADDRESS_BYTES = 107  # sun_path has 108, with its final zero: unix(7)


@dataclass(frozen=True, slots=True)
class Place:
    """
    A database's path and how an owner opens it; equal paths are one database.

    create: whether a file is made where there is none. lake: what the database
    attaches; `path` is then in memory.
    """

    path: str
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    timeout_s: float = field(default=TIMEOUT_S, compare=False)
    access: Access = field(default=NOTHING, compare=False)
    create: bool = field(default=True, compare=False)
    lake: Lake | None = field(default=None, compare=False)

    def open(self) -> Instance:
        """Open the database in this process. Raises StoreUnreadable, StoreFull, `duckdb.Error`."""
        return Instance(self.path, self.config, self.settings, self.access, self.lake)

    @property
    def in_memory(self) -> bool:
        """Whether the database lives in this process's memory alone."""
        return self.path.startswith(":memory:")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where its owner may listen, the preferred one first. Raises StoreBusy."""
        beside = f"{self.path}.sock"
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:32]
        elsewhere = str(_own_directory() / f"{digest}.sock")
        if len(os.fsencode(beside)) <= _ADDRESS_BYTES:
            return beside, elsewhere
        return (elsewhere,)


@dataclass(slots=True)
class _Owned:
    """A database this process owns: its instance, its server (None in memory), its lock."""

    instance: Instance
    server: Server | None = None
    lock: int = -1


_guard = threading.RLock()
_owned: dict[str, _Owned] = {}


def connect(place: Place, savepoint_bytes: int = 0) -> Connection:
    """
    Open a connection to the database at `place`: in this process if it owns the file.

    savepoint_bytes: see `Connection`.
    Raises StoreBusy where the file is held by a process that does not answer,
    StoreMissing, StoreUnreadable, StoreFull, and DuckDB's own errors.
    """
    return Connection(lambda: _session(place), savepoint_bytes)


def owns(path: str) -> bool:
    """Say whether this process has the database at `path` open."""
    owned = _owned.get(path)
    return owned is not None and not owned.instance.closed


def take_over(place: Place, grace_s: float = 10.0) -> None:
    """
    Make this process the owner, asking the present one to hand the file over.

    The owner waits up to `grace_s` for its transactions. Nobody can slip in
    between: the lock itself is handed over, as an open file. Raises StoreBusy.
    """
    if owns(place.path):
        return
    session = dial(place.path, place.addresses, place.timeout_s)
    if session is None:
        _session(place).close()
        if not owns(place.path):
            take_over(place, grace_s)
        return
    try:
        lock = session.take(grace_s)
    except SessionGone:
        take_over(place, grace_s)
        return
    finally:
        session.close()
    _sign(lock)
    with _guard:
        _open(place, lock)


def delete(place: Place, grace_s: float = 10.0) -> None:
    """
    Close the database wherever it is open and delete its file and WAL.

    Transactions have `grace_s` to end, then they are interrupted. The next
    connection begins a new, empty file; connections that are open notice.
    """
    with _guard:
        if _owned.get(place.path) is not None:
            os.close(_release(place.path, grace_s, delete=True, force=True))
            return
    if place.in_memory:
        return
    session = dial(place.path, place.addresses, place.timeout_s)
    if session is not None:
        try:
            session.delete(grace_s)
        finally:
            session.close()
        return
    lock = _lock(place.path)
    if lock is None:
        raise _held(place)
    try:
        _unlink(place.path)
    finally:
        os.close(lock)


def delete_file(alias: str, grace_s: float = 10.0) -> None:
    """Delete the file of the DuckDB database called `alias`; see `delete`."""
    from django.db import connections

    place: Place = connections[alias].place  # type: ignore[attr-defined]
    delete(place, grace_s)


def release(path: str) -> None:
    """Close this process's instance of the database at `path`; nothing where there is none."""
    with _guard, suppress(SessionGone):
        if path in _owned:
            lock = _release(path, 0.0, delete=False, force=True)
            if lock >= 0:
                os.close(lock)


def _session(place: Place) -> Session:
    """Open a session, here or with the owner, or become the owner. Raises StoreBusy."""
    deadline = time.monotonic() + place.timeout_s
    pause_s = 0.001
    while True:
        with _guard:
            owned = _owned.get(place.path)
            if owned is not None:
                with suppress(SessionGone):
                    return owned.instance.session()
        if owned is None and not place.in_memory:
            session = dial(place.path, place.addresses, place.timeout_s)
            if session is not None:
                return session
        held = None
        try:
            with _guard:
                if place.path not in _owned and _become_owner(place):
                    continue
        except _HeldByProgram as error:
            held = error
        if time.monotonic() > deadline:
            raise held or _held(place)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)


def _become_owner(place: Place) -> bool:
    """Take the lock and open the database; False where another process has the lock."""
    if place.in_memory:
        _owned[place.path] = _Owned(place.open())
        return True
    _check_exists(place)  # or a folder would get the lock's file for nothing
    lock = _lock(place.path)
    if lock is not None:
        _open(place, lock)
    return lock is not None


def _open(place: Place, lock: int) -> None:
    """Open the database under `lock` and serve it. Raises _HeldByProgram."""
    try:
        _check_exists(place)  # again: who deletes the file does it under this lock
        instance = place.open()
    except BaseException as error:
        os.close(lock)
        if isinstance(error, duckdb.IOException) and "Could not set lock" in str(error):
            raise _HeldByProgram(_program_message(place, str(error))) from error
        raise
    instance.on_broken = release
    owned = _Owned(instance, None, lock)
    _owned[place.path] = owned
    try:
        owned.server = Server(instance, place.addresses, _released_to)
    except OSError as error:
        logger.warning(
            "%s cannot be served to other processes: no socket can lie at %s (%s).",
            place.path,
            " or ".join(place.addresses),
            error,
        )


def _check_exists(place: Place) -> None:
    """Raise StoreMissing where DuckDB would make a file that nobody asked for."""
    if not place.create and not os.path.exists(place.path):
        raise StoreMissing(
            f"There is no file {place.path}. To fill a store: manage.py levada run, "
            f"or: manage.py levada rebuild"
        )


def _released_to(client: Client, grace_s: float, delete: bool) -> int:
    """Give the database up for `client`: called by the server."""
    path = client.server.instance.path
    return _release(path, grace_s, delete=delete, force=delete, but=client)


def _release(
    path: str, grace_s: float, *, delete: bool, force: bool, but: Client | None = None
) -> int:
    """
    Drain and close this process's instance, and delete its files if asked.

    Returns the lock, still held, -1 for a database in memory. Raises StoreBusy.
    """
    owned = _owned.get(path)
    if owned is None or owned.instance.closed:
        raise SessionGone(path, sent=False)
    owned.instance.drain(grace_s, force=force)
    if owned.server is not None:
        owned.server.stop(but=but)
    owned.instance.shut()
    if delete:
        _unlink(path)
    with _guard:
        del _owned[path]
    return owned.lock


def _unlink(path: str) -> None:
    for each in (path, f"{path}.wal"):
        Path(each).unlink(missing_ok=True)


def _lock(path: str) -> int | None:
    """Return the lock's file descriptor, None where another has it. Raises StoreUnreadable."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unreachable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    _sign(lock)
    return lock


def _sign(lock: int) -> None:
    """Write into the lock's file whose it is."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _held(place: Place) -> StoreBusy:
    pid = "?"
    with suppress(OSError):
        pid = Path(f"{place.path}.lock").read_text().strip() or pid
    return StoreBusy(
        f"{place.path} has been held by process {pid} for {place.timeout_s:g} s without "
        f"serving it. Wake or end it (see: fuser -v {place.path}), then try again."
    )


class _HeldByProgram(StoreBusy):
    """The file is open in a program that is not ours, such as DuckDB's command line."""


def _program_message(place: Place, said: str) -> str:
    """Tell who has the file, from what DuckDB `said`."""
    found = re.search(r"lock is held in (.+? \(PID \d+\))", said)
    who = found[1] if found else "a program other than Levada"
    return (
        f"{place.path} has been open in {who} for {place.timeout_s:g} s, which serves it to "
        f"nobody. End that program (see: fuser -v {place.path}), then try again."
    )


def _own_directory() -> Path:
    """Return a directory that only this user can enter. Raises StoreBusy."""
    directory = Path(tempfile.gettempdir()) / f"levada-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StoreBusy(
            f"{directory} is not this user's alone, so no socket can lie there safely. "
            f"Remove it, or run: chmod 700 {directory}"
        )
    return directory


def _leave_to_parent() -> None:
    """Forget, in a fork's child, what the parent owns, without touching any of it."""
    global _guard
    _guard = threading.RLock()
    for owned in _owned.values():
        owned.instance.abandon()
        if owned.server is not None:
            owned.server.abandon()
        if owned.lock >= 0:
            with suppress(OSError):
                os.close(owned.lock)
    _owned.clear()


def _at_exit() -> None:
    """Close what this process owns, so that the next owner finds no WAL to replay."""
    for path in list(_owned):
        with suppress(Exception):
            lock = _release(path, EXIT_GRACE_S, delete=False, force=True)
            if lock >= 0:
                os.close(lock)


os.register_at_fork(after_in_child=_leave_to_parent)
atexit.register(_at_exit)
