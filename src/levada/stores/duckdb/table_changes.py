"""What a run of records does to each table, decided in plain Python before DuckDB is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow
from pyarrow import compute

from levada.changes import DELETE, TRUNCATE, Batch
from levada.errors import SchemaDrift
from levada.tables import TableSpec

from .decode import any_noncanonical

OFFSET, LABEL, OP, KEY, AFTER, FINGERPRINT = 0, 2, 3, 4, 6, 7
"""Where a row of a `Batch` has them; `levada.changes.Record` says the same by name."""


class TableChanges:
    """
    What a run of records does to one table: the last row image of each key, or none.

    truncated: whether the table is emptied first.
    """

    def __init__(self, spec: TableSpec) -> None:
        self.spec = spec
        self.truncated = False
        self.last: dict[str | None, tuple[Any, ...]] = {}

    @cached_property
    def arrow(self) -> pyarrow.Table:
        """The changes as columns offset, key and image (both text; null for a deletion)."""
        rows = list(self.last.values())
        return pyarrow.table(
            {
                "offset": pyarrow.array([row[OFFSET] for row in rows], pyarrow.int64()),
                "key": pyarrow.array([row[KEY] for row in rows], pyarrow.string()),
                "image": pyarrow.array(
                    [None if row[OP] == DELETE else row[AFTER] for row in rows], pyarrow.string()
                ),
            }
        )

    def suspicious(self) -> bool:
        """Say whether a key is missing or an image departs from the canonical forms."""
        if None in self.last:
            return True
        pattern = any_noncanonical(self.spec)
        images = self.arrow["image"]
        return bool(compute.any(compute.match_substring_regex(images, pattern)).as_py())


def changes_of(
    batches: Sequence[Batch], specs: Mapping[str, TableSpec], skip: Collection[int] = ()
) -> dict[str, TableChanges]:
    """
    Reduce `batches` to what they do to the tables of `specs`, by label.

    skip: offsets to leave out. Of several changes of one key the last wins;
    the key's text tells them apart, which one trigger writes in one way only.
    Raises SchemaDrift naming each table whose records have another shape.
    """
    found: dict[str, TableChanges] = {}
    drifted: dict[str, str] = {}
    shapes = {label: spec.fingerprint for label, spec in specs.items()}
    for batch in batches:
        for row in batch.rows:
            label = row[LABEL]
            shape = shapes.get(label)
            if shape is None or (skip and row[OFFSET] in skip):
                continue
            if shape != row[FINGERPRINT]:
                drifted.setdefault(label, row[FINGERPRINT])
                continue
            changes = found.get(label)
            if changes is None:
                changes = found[label] = TableChanges(specs[label])
            if row[OP] == TRUNCATE:
                changes.truncated = True
                changes.last.clear()
            else:
                changes.last[row[KEY]] = row
    if drifted:
        label, shape = next(iter(drifted.items()))
        raise SchemaDrift(
            f"{label} has shape {shapes[label]} in the store, its newest changes have {shape}. "
            f"Run: manage.py levada rebuild --table {label}",
            drifted,
        )
    return found
