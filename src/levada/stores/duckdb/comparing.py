"""
One table of the store against the rows it should have, compared in DuckDB's SQL.

The rows come in chunks and in no particular order; `Comparison` joins each
chunk with the table by key, and at the end asks what the table has beside
them and what it has twice (nothing but the applier keeps a key unique).

Of what changed after the rows were read, only keys and offsets are kept, in
DuckDB: images pass by in batches, for they may be those of a transaction that
does not fit into memory.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow
from pyarrow import compute

from levada.tables import ColumnSpec, TableSpec

from . import decode
from .decode import quote
from .table_changes import TableChanges

KEPT = 10_000
"""Differences described for a table; beyond that they are only counted."""

SHOWN = 10_000
"""Characters of a value shown in a difference."""

CHANGED, MISSING, EXTRA, DUPLICATE, UNREADABLE = (
    "changed",
    "missing",
    "extra",
    "duplicate",
    "unreadable",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """
    One row that differs.

    kind: `changed`; `missing` or `extra` in the store; `duplicate`: there
    more than once; `unreadable`: the source holds a value that its column's
    type does not have, so no store can be equal to it.
    key: the primary key's columns to their values as text.
    columns: each differing column to its value in source and store, as text;
    None is NULL. Empty for missing, extra and duplicate rows.
    """

    kind: str
    key: dict[str, str | None]
    columns: dict[str, tuple[str | None, str | None]]


class Comparison:
    """
    Compares one table inside the transaction that is open on `connection`.

    First `note` what happened to the table since its rows were read, batch by
    batch, and call `noted`; then `compare` the rows, then `compare_newer` the
    same batches; then `finish`.

    poison: the offsets of changes that no store can take.
    differences: described, the first KEPT of them. different: how many there
    are. expected_rows: rows compared so far.
    """

    def __init__(
        self,
        connection: Any,
        data_types: decode.DataTypes,
        spec: TableSpec,
        poison: Collection[int],
    ) -> None:
        self.connection = connection
        self.spec = spec
        self.data_types = data_types
        self.poison = pyarrow.array(list(poison), pyarrow.int64())
        self.truncated = False
        self.differences: list[Difference] = []
        self.different = 0
        self.expected_rows = 0
        self._key = [quote(name) for name in spec.key]
        keys = ", ".join(
            f"{quote(name)} {decode.column_type(spec.column(name), data_types)}"
            for name in spec.key
        )
        self._run(f"CREATE OR REPLACE TEMP TABLE levada_seen ({keys})")
        self._run('CREATE OR REPLACE TEMP TABLE levada_noted (key VARCHAR, "offset" BIGINT)')
        self._unfit: set[int] = set()
        self._has_newer = False

    def note(self, changes: TableChanges) -> None:
        """Note which rows a batch changed after the source was read; batches in their order."""
        if changes.truncated:
            self.truncated = True
            self._run("DELETE FROM levada_noted")
        self._run(
            'INSERT INTO levada_noted SELECT key, "offset" FROM changed',
            {"changed": changes.arrow},
        )

    def noted(self) -> None:
        """Find the newest change of each row noted: it alone counts."""
        newest = 'SELECT key, max("offset") AS "offset" FROM levada_noted GROUP BY key'
        unfit = {"unfit": pyarrow.table({"offset": self.poison})}
        keys = decode.keys_sql(self.spec, self.data_types, beside="offset")
        self._run(
            f"CREATE OR REPLACE TEMP TABLE levada_newer AS "
            f'WITH changed AS (SELECT * FROM ({newest}) ANTI JOIN unfit USING ("offset")) {keys}',
            unfit,
        )
        poison = self.connection.execute(
            f'SELECT "offset" FROM ({newest}) SEMI JOIN unfit USING ("offset")', arrow=unfit
        )
        self._unfit = {offset for (offset,) in poison.fetchall()}
        self._run("DROP TABLE levada_noted")
        self._has_newer = self._number("SELECT count(*) FROM levada_newer") > 0

    def compare(self, chunk: pyarrow.Table) -> None:
        """Compare rows of the source, in the form that `decode.native_sql` takes."""
        if self.truncated:
            return
        select = decode.tried_sql(self.spec, self.data_types)
        self._run(f"CREATE OR REPLACE TEMP TABLE levada_expected AS {select}", {"chunk": chunk})
        if self._has_newer:
            same = " AND ".join(
                f"levada_expected.{name} = newer.k{index}" for index, name in enumerate(self._key)
            )
            self._run(f"DELETE FROM levada_expected USING levada_newer AS newer WHERE {same}")
        self._compare()

    def compare_newer(self, changes: TableChanges) -> None:
        """Compare the rows whose newest change is among `changes`, by their images."""
        unfit = compute.is_in(changes.arrow["offset"], self.poison)
        rows = decode.rows_sql(self.spec, self.data_types)
        self._run(
            "CREATE OR REPLACE TEMP TABLE levada_expected AS "
            'WITH changed AS (SELECT * FROM batch SEMI JOIN levada_newer USING ("offset")) '
            f"SELECT *, false AS levada_unreadable FROM ({rows})",
            {"batch": changes.arrow.filter(compute.invert(unfit))},
        )
        self._compare()
        for row in changes.arrow.filter(unfit).to_pylist():
            key = json.loads(row["key"] or "[]", parse_float=str)
            texts = [None if value is None else str(value) for value in key]
            if row["offset"] in self._unfit and len(texts) == len(self.spec.key):
                self.unreadable(dict(zip(self.spec.key, texts, strict=True)), "", row["image"])

    def finish(self) -> int:
        """Look for extra and duplicate rows; returns how many rows the table has."""
        keys, table = ", ".join(self._key), quote(self.spec.table)
        same = " AND ".join(f"seen.{name} = store.{name}" for name in self._key)
        extra = (
            f"FROM {table} AS store "
            f"WHERE NOT EXISTS (SELECT 1 FROM levada_seen AS seen WHERE {same})"
        )
        self._keys_of(EXTRA, f"SELECT {keys} {extra}", f"SELECT count(*) {extra}")
        twice = f"SELECT {keys} FROM {table} GROUP BY {keys} HAVING count(*) > 1"
        self._keys_of(DUPLICATE, twice, f"SELECT count(*) FROM ({twice})")
        return self._number(f"SELECT count(*) FROM {table}")

    def unreadable(self, key: dict[str, str | None], column: str, value: str | None) -> None:
        """Count a row in which the source has a value that its column's type does not have."""
        self.expected_rows += 1
        values = ", ".join(
            f"TRY_CAST(? AS {decode.column_type(self.spec.column(name), self.data_types)})"
            for name in key
        )
        self.connection.execute(f"INSERT INTO levada_seen SELECT {values}", list(key.values()))
        self._add(Difference(UNREADABLE, key, {column: (value, None)}))

    # The work.

    def _compare(self) -> None:
        keys = ", ".join(self._key)
        self._run(f"INSERT INTO levada_seen SELECT {keys} FROM levada_expected")
        self.expected_rows += self._number("SELECT count(*) FROM levada_expected")
        same = " AND ".join(f"expected.{name} = store.{name}" for name in self._key)
        differs = " OR ".join(self._differs(column) for column in self._compared())
        joined = (
            f"FROM levada_expected AS expected LEFT JOIN "
            f"(SELECT *, rowid AS levada_row FROM {quote(self.spec.table)}) AS store ON {same} "
            f"WHERE levada_row IS NULL OR levada_unreadable{' OR ' + differs if differs else ''}"
        )
        count = self._number(f"SELECT count(*) {joined}")
        if count:
            self._describe(joined, count)

    def _compared(self) -> list[ColumnSpec]:
        return [column for column in self.spec.columns if column.name not in self.spec.key]

    def _differs(self, column: ColumnSpec) -> str:
        name = quote(column.name)
        differs = f"expected.{name} IS DISTINCT FROM store.{name}"
        if column.kind == "float":  # DuckDB finds 0.0 and -0.0 equal
            signs = f"signbit(expected.{name}) <> signbit(store.{name})"
            differs += f" OR (expected.{name} = 0 AND {signs})"
        return f"({differs})"

    def _describe(self, joined: str, count: int) -> None:
        room = max(0, KEPT - len(self.differences))
        columns = self._compared()
        values = [f"expected.{name}::VARCHAR" for name in self._key]
        values += ["levada_row IS NULL", "levada_unreadable"]
        for column in columns:
            name = quote(column.name)
            values += [
                self._differs(column),
                f"expected.{name}::VARCHAR",
                f"store.{name}::VARCHAR",
            ]
        order = ", ".join(f"expected.{name}" for name in self._key)
        rows = self._rows(f"SELECT {', '.join(values)} {joined} ORDER BY {order} LIMIT {room}")
        self.different += count - len(rows)
        for row in rows:
            self._add(self._difference(row, columns))

    def _difference(self, row: tuple[Any, ...], columns: list[ColumnSpec]) -> Difference:
        width = len(self._key)
        key = dict(zip(self.spec.key, row[:width], strict=True))
        missing, unreadable = row[width : width + 2]
        found = {}
        for index, column in enumerate(columns):
            differs, expected, held = row[width + 2 + 3 * index : width + 5 + 3 * index]
            if differs and not missing:
                found[column.name] = (_shortened(expected), _shortened(held))
        kind = UNREADABLE if unreadable else MISSING if missing else CHANGED
        return Difference(kind, key, found)

    def _keys_of(self, kind: str, select: str, count: str) -> None:
        total = self._number(count)
        if not total:
            return
        texts = ", ".join(f"{name}::VARCHAR" for name in self._key)
        room = max(0, KEPT - len(self.differences))
        rows = self._rows(f"SELECT {texts} FROM ({select}) ORDER BY ALL LIMIT {room}")
        self.different += total - len(rows)
        for row in rows:
            self._add(Difference(kind, dict(zip(self.spec.key, row, strict=True)), {}))

    def _add(self, difference: Difference) -> None:
        self.different += 1
        if len(self.differences) < KEPT:
            self.differences.append(difference)

    def _run(self, sql: str, arrow: dict[str, pyarrow.Table] | None = None) -> None:
        self.connection.execute(sql, arrow=arrow)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self.connection.execute(sql).fetchall()
        return rows

    def _number(self, sql: str) -> int:
        return int(self._rows(sql)[0][0])


def _shortened(text: str | None) -> str | None:
    if text is None or len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN]}… ({len(text)} characters)"
