"""Both ends of the channel and what lies between, as the page shows them at one moment."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connections

from almanac.calendar_events.models import EconomicEvent
from levada.changes import CHANGES, Position
from levada.errors import StoreError
from levada.log import open_log
from levada.outbox.sources import open_source
from levada.stores import open_store

from .places import REPLICA, SOURCE, engine, gate, replica_path
from .works import Proof


@dataclass(frozen=True, slots=True)
class Reading:
    """
    The numbers of one moment.

    outbox_rows: committed, not yet in the log. log_end: records ever put into
    the log. source_rows, replica_rows: events; None where the replica is
    missing. offset: the replica's position; None likewise. lag_s: how long
    the oldest record the replica lacks has been in the log.
    """

    source_rows: int
    source_bytes: int
    outbox_rows: int
    log_end: int
    replica_rows: int | None
    replica_bytes: int
    offset: int | None
    lag_s: float = 0.0

    @property
    def lag_records(self) -> int | None:
        """Records the replica has yet to take; None where there is no replica."""
        if self.offset is None:
            return None
        return self.outbox_rows + max(0, self.log_end - self.offset)

    @property
    def present(self) -> bool:
        """Say whether there is a replica."""
        return self.offset is not None


class Gauge:
    """
    Reads the numbers; counts rows again only when something has moved.

    Counting a million rows takes the source some 30 ms; nothing is counted
    while nothing is written. Use one gauge in one thread.
    """

    def __init__(self) -> None:
        self.log = open_log()
        self.source = open_source(SOURCE)
        self._source_at: Any = None
        self._source_rows = 0
        self._replica_at: Position | None = None
        self._replica_rows: int | None = None

    def read(self) -> Reading:
        """Look at source, outbox, log and replica."""
        self._count_source()
        position = self._count_replica()
        end = self.log.end(CHANGES)
        return Reading(
            source_rows=self._source_rows,
            source_bytes=source_bytes(),
            outbox_rows=self.source.size(),
            log_end=end.offset,
            replica_rows=self._replica_rows if position else None,
            replica_bytes=file_bytes(replica_path()),
            offset=position.offset if position else None,
            lag_s=self.log.age_s(position) if position and end.offset > position.offset else 0.0,
        )

    def close(self) -> None:
        """Give back what the gauge opened."""
        self.source.close()
        connections.close_all()

    def _count_source(self) -> None:
        position = self.source.position()
        if position != self._source_at:
            self._source_rows = EconomicEvent.objects.using(SOURCE).count()
            self._source_at = position

    def _count_replica(self) -> Position | None:
        """Return the replica's position, None without a replica; opening one would create it."""
        try:
            with gate.reading():
                return self._look_inside()
        except StoreError:  # none, or one that is being made
            self._let_go()
            return None

    def _look_inside(self) -> Position | None:
        with closing(open_store(REPLICA)) as store:
            position = store.position()
        if position is not None and position != self._replica_at:
            self._replica_rows = EconomicEvent.objects.using(REPLICA).count()
            self._replica_at = position
        return position

    def _let_go(self) -> None:
        """Keep no connection to a file that was deleted: the next one is another file."""
        self._replica_at = None
        connections[REPLICA].close()


def read_now() -> Reading:
    """Take one reading."""
    with closing(Gauge()) as gauge:
        return gauge.read()


def has_replica() -> bool:
    """Say whether there is a replica that has been filled."""
    return read_now().present


def file_bytes(path: Path) -> int:
    """Return the size of a database file and its write-ahead log, 0 where there is none."""
    return sum(
        os.stat(each).st_size
        for each in (path, f"{path}-wal", f"{path}.wal")
        if os.path.exists(each)
    )


def source_bytes() -> int:
    """Return the size of the source database."""
    connection = connections[SOURCE]
    if connection.vendor == "sqlite":
        return file_bytes(Path(connection.settings_dict["NAME"]))
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


def size(value: int) -> str:
    """Write a number of bytes for people: 812 KB, 41.3 MB."""
    amount = float(value)
    for unit in ("bytes", "KB", "MB"):
        if amount < 1000:
            return (
                f"{amount:.0f} {unit}"
                if unit == "bytes" or amount >= 100
                else f"{amount:.1f} {unit}"
            )
        amount /= 1000
    return f"{amount:.1f} GB"


def proof_text(proof: Proof | None, reading: Reading) -> str:
    """Say what is known about equality."""
    if not reading.present:
        return "no replica"
    if proof is None:
        return "not verified yet"
    if not proof.equal:
        return "undecided" if proof.undecided else f"{proof.differences:,} rows differ"
    return "verified ✓"


def proof_note(proof: Proof | None, reading: Reading) -> str:
    """Say when and where the proof was taken, and how much has come since."""
    if proof is None or not reading.present:
        return ""
    since = max(0, reading.log_end - proof.offset)
    changes = f", {since:,} change{'s' if since != 1 else ''} since" if since else ""
    return f"at position {proof.offset:,}, {proof.at:%H:%M:%S} UTC{changes}"


def lag_text(reading: Reading) -> str:
    """Say how far the replica is behind, in changes and, where it is, in time."""
    lag = reading.lag_records
    if lag is None:
        return "—"
    changes = f"{lag:,} change{'' if lag == 1 else 's'}"
    return f"{changes}, {reading.lag_s:.1f} s" if reading.lag_s else changes


def to_json(reading: Reading, proof: Proof | None) -> dict[str, Any]:
    """Return the texts of the page by the name of their place, and the states it styles by."""
    return {
        "texts": {
            "source_rows": f"{reading.source_rows:,}",
            "source_size": size(reading.source_bytes),
            "outbox": f"{reading.outbox_rows:,}",
            "log": f"{reading.log_end:,}",
            "replica_rows": "—" if reading.replica_rows is None else f"{reading.replica_rows:,}",
            "replica_size": size(reading.replica_bytes) if reading.present else "—",
            "replica_lag": lag_text(reading),
            "proof": proof_text(proof, reading),
            "proof_note": proof_note(proof, reading),
        },
        "present": reading.present,
        "proven": bool(proof and proof.equal and reading.present),
        "engines": {SOURCE: engine(SOURCE), REPLICA: engine(REPLICA)},
    }
