"""
Run a command beside a throw-away PostgreSQL server.

    python scripts/with_postgres.py COMMAND [ARGUMENT …]

The server's files lie in a temporary folder, it listens on a free port of
127.0.0.1, and it is gone when the command ends. The command finds its
database in LEVADA_TEST_SOURCE. Where that variable is already set, that
database is used and no server started. PostgreSQL refuses to run as root, so
root starts it as `postgres` or `nobody`.

Exit status: the command's own; 77 where no PostgreSQL is installed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

NOT_INSTALLED = 77
"""Automake's exit status for a test that was skipped."""

INSTALL_ROOTS = ("/usr/lib/postgresql", "/usr/local/opt", "/opt/homebrew/opt")
"""Where Debian and Homebrew put one folder a version, each with a `bin`."""

OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    # The machine's death would end the tests too, so nothing has to survive it.
    "fsync": "off",
    "full_page_writes": "off",
}


def find_bin() -> Path | None:
    """Return the folder with initdb and pg_ctl of the newest PostgreSQL; None without one."""
    found = [
        candidate.parent
        for root in INSTALL_ROOTS
        for candidate in Path(root).glob("*/bin/initdb")
        if (candidate.parent / "pg_ctl").exists()
    ]
    if found:
        return max(found, key=_version)
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


def _version(folder: Path) -> tuple[int, ...]:
    digits = folder.parent.name.rpartition("@")[2].split(".")
    return tuple(int(part) for part in digits if part.isdecimal())


def server_user() -> str | None:
    """Return whom the server must run as: None for ourselves, which root may not be."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise SystemExit("PostgreSQL refuses to run as root, and there is no user to run it as.")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """One PostgreSQL cluster in a folder of its own."""

    def __init__(self, bin_folder: Path, folder: Path) -> None:
        self.bin = bin_folder
        self.folder = folder
        self.cluster = folder / "cluster"
        self.port = free_port()
        self.user = server_user()
        if self.user is not None:
            shutil.chown(folder, self.user)

    @property
    def url(self) -> str:
        """The database the tests connect to."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/levada"

    def start(self) -> None:
        """Create the cluster, start the server and create the database."""
        self._run("initdb", "--pgdata", self.cluster, "--username", "postgres", "--no-sync",
                  "--auth", "trust", "--encoding", "UTF8", "--locale", "C")  # fmt: skip
        options = {**OPTIONS, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        flags = " ".join(f"-c {name}={value}" for name, value in options.items())
        log = self.folder / "server.log"
        self._run("pg_ctl", "--pgdata", self.cluster, "--log", log, "-o", flags, "--wait", "start")
        self._run("createdb", "--host", "127.0.0.1", "--port", str(self.port),
                  "--username", "postgres", "levada")  # fmt: skip

    def stop(self) -> None:
        """Stop the server; its clients, if any are left, lose their connections."""
        self._run("pg_ctl", "--pgdata", self.cluster, "--mode", "immediate", "--wait", "stop")

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self.bin / program, *arguments],
            user=self.user,
            extra_groups=None if self.user is None else [],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            # pg_ctl's server inherits the output: a pipe here would never close.
            stdout=(output := (self.folder / f"{program}.out").open("w+")),
            stderr=subprocess.STDOUT,
            check=False,
        )
        with output:
            if done.returncode:
                output.seek(0)
                raise SystemExit(f"{program} failed:\n{output.read()}")


@contextlib.contextmanager
def postgres(bin_folder: Path) -> Iterator[str]:
    """Start a server for the duration of the block; yields its database's URL."""
    folder = Path(tempfile.mkdtemp(prefix="levada-postgres-"))
    try:
        server = Server(bin_folder, folder)
        server.start()
        try:
            yield server.url
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(command: Sequence[str], source: str) -> int:
    """Run `command` with the database in its environment; returns its exit status."""
    with subprocess.Popen(command, env={**os.environ, "LEVADA_TEST_SOURCE": source}) as child:
        # Ctrl-C reaches the child by itself; SIGTERM is ours to hand on. Both let it finish first.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        return child.wait()


def main(command: Sequence[str]) -> int:
    """Run `command` beside a server, or with the one the environment names."""
    if not command:
        raise SystemExit(__doc__)
    if source := os.environ.get("LEVADA_TEST_SOURCE"):
        return run(command, source)
    bin_folder = find_bin()
    if bin_folder is None:
        print("No PostgreSQL is installed here (no initdb found).", file=sys.stderr)
        return NOT_INSTALLED
    with postgres(bin_folder) as source:
        return run(command, source)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
