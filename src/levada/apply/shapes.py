"""What the source says its tables look like now: the specs its triggers were made for."""

from __future__ import annotations

from collections.abc import Collection

from django.db import DatabaseError, connections

from levada.conf import replicated_in
from levada.contracts import Source, SourceSnapshot
from levada.errors import UnknownModel
from levada.outbox.models import ReplicatedTable
from levada.tables import TableSpec

SHAPES = "SELECT label, spec FROM levada_table"


def wanted_labels(alias: str) -> frozenset[str]:
    """Return the labels that the settings replicate to the store `alias`."""
    return frozenset(replicated_in(alias))


def check_labels(alias: str, labels: Collection[str]) -> None:
    """Raise UnknownModel for a label that does not go to the store `alias`."""
    known = wanted_labels(alias)
    for label in labels:
        if label not in known:
            raise UnknownModel(
                f"{label!r} is not replicated to {alias!r}. "
                f"LEVADA['REPLICATE'] sends there: {', '.join(sorted(known)) or 'nothing'}."
            )


def shapes_in(snapshot: SourceSnapshot) -> dict[str, TableSpec]:
    """Return the captured tables' specs as of `snapshot`, by label."""
    return {
        label: TableSpec.from_json(spec) for rows in snapshot.chunks(SHAPES) for label, spec in rows
    }


def fingerprints(source: Source) -> dict[str, str]:
    """Return the captured tables' fingerprints now, by label; {} before the first migrate."""
    try:
        return dict(ReplicatedTable.objects.using(source.alias).values_list("label", "fingerprint"))
    except DatabaseError:
        return {}


def driver_error(alias: str) -> type[Exception]:
    """Return what the database's driver raises, in connections that are not Django's."""
    error: type[Exception] = connections[alias].Database.Error  # type: ignore[attr-defined]
    return error
