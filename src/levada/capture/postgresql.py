"""
Capture on PostgreSQL: one function a table and four statement triggers that call it.

Traps this function was made around:

- Joining the old and the new rows of an UPDATE by a cached plan can become a
  nested loop over both: 20,000 rows took 113 s. A FULL JOIN cannot; it also
  yields an altered primary key as one row gone and one row come.
- A DBA renames or drops a column. The function looks the columns up before it
  names them; if one is gone it writes a change with the fingerprint `drifted`
  instead of failing the user's statement, and `migrate` makes a new function.
- A table's own row triggers may change a row again before the statement
  triggers run. A capture that runs inside another trigger leaves a note, and
  the outer statement then reads its rows from the table.
- Text of timestamps, floats and bytes follows the session. The function sets
  or spells out what it depends on.
- The writer may have no right on the outbox: SECURITY DEFINER, with a
  search_path nobody can plant tables in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from django.conf import settings as django_settings

from levada.changes import CHANGES
from levada.tables import TableSpec

from .plan import DRIFTED, PREFIX, VERSION, Found, Table, Wanted, literal, quoted

_TABLES = """
WITH RECURSIVE part (root, oid) AS (
    SELECT c.oid, c.oid
    FROM pg_class AS c
    WHERE c.relname = ANY (%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND pg_table_is_visible(c.oid)
    UNION ALL
    SELECT part.root, i.inhrelid FROM part JOIN pg_inherits AS i ON i.inhparent = part.oid
)
SELECT root.relname, part.oid = part.root, root.relkind::text, s.nspname, c.relname,
    ARRAY(
        SELECT a.attname || ' ' || t.typname
        FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum
    )
FROM part
JOIN pg_class AS root ON root.oid = part.root
JOIN pg_class AS c ON c.oid = part.oid
JOIN pg_namespace AS s ON s.oid = c.relnamespace
ORDER BY part.root, part.oid <> part.root, s.nspname, c.relname
"""
_FUNCTIONS = r"""
SELECT s.nspname, p.proname, p.prosrc
FROM pg_proc AS p JOIN pg_namespace AS s ON s.oid = p.pronamespace
WHERE p.proname LIKE 'levada\_capture\_%' AND p.prorettype = 'trigger'::regtype
"""
_TRIGGERS = r"""
SELECT fs.nspname, p.proname, s.nspname, c.relname, t.tgname, t.tgenabled::text
FROM pg_trigger AS t
JOIN pg_proc AS p ON p.oid = t.tgfoid
JOIN pg_namespace AS fs ON fs.oid = p.pronamespace
JOIN pg_class AS c ON c.oid = t.tgrelid
JOIN pg_namespace AS s ON s.oid = c.relnamespace
WHERE NOT t.tgisinternal AND p.proname LIKE 'levada\_capture\_%'
"""
_KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table"}
_TIMING = {
    "levada_insert": "AFTER INSERT ON {table} REFERENCING NEW TABLE AS levada_new",
    "levada_update": (
        "AFTER UPDATE ON {table} REFERENCING OLD TABLE AS levada_old NEW TABLE AS levada_new"
    ),
    "levada_delete": "AFTER DELETE ON {table} REFERENCING OLD TABLE AS levada_old",
    "levada_truncate": "AFTER TRUNCATE ON {table}",
}


def tables(cursor: Any, names: list[str]) -> dict[str, Table]:
    """Return those of `names` that the search path finds, with their partitions."""
    cursor.execute(_TABLES, [names])
    result: dict[str, Table] = {}
    parts: dict[str, list[tuple[str, str]]] = {}
    for root, is_root, kind, schema, name, columns in cursor.fetchall():
        if is_root:
            types = dict(column.rsplit(" ", 1) for column in columns)
            parts[root] = []
            result[root] = Table(root, types, schema, _KINDS[kind])
        elif (schema, name) not in parts[root]:
            parts[root].append((schema, name))
    return {
        name: Table(name, table.columns, table.schema, table.kind, tuple(parts[name]))
        for name, table in result.items()
    }


def found(cursor: Any) -> dict[str, Found]:
    """Return the capture functions and triggers there are, by function name."""
    cursor.execute(_FUNCTIONS)
    result: dict[str, Found] = {}
    for schema, function, body in cursor.fetchall():
        each = result.setdefault(function, Found())
        each.pieces["function"] = body.strip()
        each.drop["function"] = f"DROP FUNCTION {_name(schema, function)}() CASCADE"
    cursor.execute(_TRIGGERS)
    for _, function, schema, table, name, enabled in cursor.fetchall():
        target, each = _name(schema, table), result[function]
        # Piece by piece, a disabled trigger differs from the wanted one and is made again.
        each.pieces[f"{name} on {target}"] = "" if enabled in "OA" else enabled
        each.drop[f"{name} on {target}"] = f"DROP TRIGGER {quoted(name)} ON {target}"
    return result


def function_name(table: str) -> str:
    """Return the name of the function that captures `table`, within PostgreSQL's 63 bytes."""
    name = PREFIX + table
    if len(name.encode()) <= 63:
        return name
    digest = hashlib.sha256(table.encode()).hexdigest()[:12]
    return PREFIX + table.encode()[:35].decode(errors="ignore") + "_" + digest


def wanted(spec: TableSpec, table: Table, outbox: Table) -> Wanted:
    """Return the function and triggers that capture `spec`'s columns of `table` into `outbox`."""
    function = _name(outbox.schema, function_name(spec.table))
    body = _body(spec, table, outbox)
    pieces, create = {"function": body.strip()}, {"function": _function(function, body)}
    for schema, name in [(table.schema, table.name), *table.parts]:
        target = _name(schema, name)
        for trigger, timing in _TIMING.items():
            piece = f"{trigger} on {target}"
            pieces[piece] = ""
            create[piece] = (
                f"CREATE OR REPLACE TRIGGER {trigger} {timing.format(table=target)}\n"
                f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            )
    return Wanted(spec, pieces=pieces, create=create)


def _name(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"


def _function(name: str, body: str) -> str:
    return (
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger\n"
        f"LANGUAGE plpgsql SECURITY DEFINER\n"
        f"SET search_path = pg_catalog, pg_temp\n"
        f"SET timezone = 'UTC'\n"
        f"SET extra_float_digits = 1\n"
        f"AS $levada${body}$levada$;\n"
        f"REVOKE ALL ON FUNCTION {name}() FROM PUBLIC"
    )


def _body(spec: TableSpec, table: Table, outbox: Table) -> str:
    image = _Image(spec, table.columns)
    target, here = _name(outbox.schema, outbox.name), _name(table.schema, table.name)
    note = literal(f"levada.nested_{hashlib.sha256(spec.table.encode()).hexdigest()[:12]}")
    return f"""
#variable_conflict use_column
DECLARE
    -- Set when a statement inside another trigger has already written to this table.
    nested boolean := coalesce(current_setting({note}, true), '') = '1';
    reason constant text := {literal(f"{spec.label}, {spec.fingerprint}, Levada v{VERSION}")};
BEGIN
    IF TG_OP = 'TRUNCATE' AND TG_TABLE_NAME = {literal(table.name)} THEN
{_indented(_lone(spec, target, "'t'", spec.fingerprint), 8)};
    ELSIF TG_OP = 'TRUNCATE' OR ({_columns_present(spec, table)}) <> {len(spec.columns)} THEN
        -- Part of the table was emptied, or a column is gone: say so, and fail nobody.
{_indented(_lone(spec, target, _OP, DRIFTED), 8)};
    ELSIF TG_OP = 'INSERT' AND NOT nested THEN
{_indented(_rows(spec, target, image.inserted()), 8)};
    ELSIF TG_OP = 'DELETE' AND NOT nested THEN
{_indented(_rows(spec, target, image.deleted()), 8)};
    ELSIF NOT nested THEN
{_indented(_rows(spec, target, image.updated()), 8)};
    ELSIF TG_OP = 'INSERT' THEN
{_indented(_rows(spec, target, image.inserted(here)), 8)};
    ELSIF TG_OP = 'DELETE' THEN
{_indented(_rows(spec, target, image.deleted(here)), 8)};
    ELSE
{_indented(_rows(spec, target, image.updated(here)), 8)};
    END IF;
    IF pg_trigger_depth() > 1 THEN
        PERFORM set_config({note}, '1', true);
    ELSIF nested THEN
        PERFORM set_config({note}, '', true);
    END IF;
    RETURN NULL;
END
"""


_OP = "CASE TG_OP WHEN 'INSERT' THEN 'c' WHEN 'DELETE' THEN 'd' ELSE 'u' END"
_INTO = (
    "INSERT INTO {outbox} (topic, label, op, key, before, after,\n"
    "    fingerprint, transaction, changed_at, context)"
)
_XID = "(SELECT pg_current_xact_id()::text::bigint)"
_NOW = (
    "(SELECT to_char(statement_timestamp() AT TIME ZONE 'UTC',\n"
    '        \'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"\'))'
)
_CONTEXT = "(SELECT nullif(current_setting('levada.context', true), ''))"


def _lone(spec: TableSpec, outbox: str, op: str, fingerprint: str) -> str:
    """Write one outbox row without key and images, about the table as a whole."""
    return (
        f"{_INTO.format(outbox=outbox)}\n"
        f"VALUES ({literal(CHANGES)}, {literal(spec.label)}, {op}, NULL, NULL, NULL,\n"
        f"    {literal(fingerprint)}, {_XID}, {_NOW},\n    {_CONTEXT})"
    )


def _rows(spec: TableSpec, outbox: str, rows: str) -> str:
    """Write one outbox row for each of `rows` (op, key, before, after) that differs."""
    return (
        f"{_INTO.format(outbox=outbox)}\n"
        f"SELECT {literal(CHANGES)}, {literal(spec.label)}, op, key, before, after,\n"
        f"    {literal(spec.fingerprint)}, {_XID}, {_NOW},\n    {_CONTEXT}\n"
        f"FROM (\n{_indented(rows, 4)}\n    OFFSET 0  -- or each image is made twice\n"
        f") AS change\nWHERE before IS DISTINCT FROM after"
    )


class _Image:
    """The SELECTs that turn transition tables into op, key, before and after."""

    def __init__(self, spec: TableSpec, types: Mapping[str, str]) -> None:
        self.spec = spec
        self.types = types

    def inserted(self, table: str = "") -> str:
        if not table:
            return (
                f"SELECT 'c' AS op, {self.key('n')} AS key, NULL::text AS before,\n"
                f"    {self.row('n')} AS after\nFROM levada_new AS n"
            )
        return (
            f"SELECT 'c' AS op, {self.key('t')} AS key, NULL::text AS before,\n"
            f"    {self.row('t')} AS after\n"
            f"FROM levada_new AS n JOIN {table} AS t ON {self.on('t', 'n')}"
        )

    def deleted(self, table: str = "") -> str:
        if not table:
            return (
                f"SELECT 'd' AS op, {self.key('o')} AS key, {self.row('o')} AS before,\n"
                f"    NULL::text AS after\nFROM levada_old AS o"
            )
        return (
            f"SELECT CASE WHEN {self.absent('t')} THEN 'd' ELSE 'u' END AS op, "
            f"{self.key('o')} AS key,\n    {self.row('o')} AS before,\n"
            f"    CASE WHEN {self.present('t')} THEN {self.row('t')} END AS after\n"
            f"FROM levada_old AS o LEFT JOIN {table} AS t ON {self.on('t', 'o')}"
        )

    def updated(self, table: str = "") -> str:
        now = "t" if table else "n"
        join = f"FROM levada_old AS o FULL JOIN levada_new AS n ON {self.on('n', 'o')}"
        if table:
            keys = self.spec.key
            either = (f"t.{quoted(k)} = coalesce(n.{quoted(k)}, o.{quoted(k)})" for k in keys)
            join += f"\nLEFT JOIN {table} AS t ON {' AND '.join(either)}"
        return (
            f"SELECT CASE WHEN {self.absent(now)} THEN 'd' WHEN {self.absent('o')} THEN 'c' "
            f"ELSE 'u' END AS op,\n"
            f"    CASE WHEN {self.absent(now)} THEN {self.key('o')} "
            f"ELSE {self.key(now)} END AS key,\n"
            f"    CASE WHEN {self.present('o')} THEN {self.row('o')} END AS before,\n"
            f"    CASE WHEN {self.present(now)} THEN {self.row(now)} END AS after\n{join}"
        )

    def on(self, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{quoted(k)} = {right}.{quoted(k)}" for k in self.spec.key)

    def absent(self, row: str) -> str:
        return f"{row}.{quoted(self.spec.key[0])} IS NULL"

    def present(self, row: str) -> str:
        return f"{row}.{quoted(self.spec.key[0])} IS NOT NULL"

    def key(self, row: str) -> str:
        values = (f"to_json({self.value(name, row)})" for name in self.spec.key)
        return "'[' || " + " || ',' || ".join(values) + " || ']'"

    def row(self, row: str) -> str:
        names = [column.name for column in self.spec.columns]
        if len(names) <= 50:  # a function takes 100 arguments
            pairs = (f"{literal(name)}, {self.value(name, row)}" for name in names)
            return f"json_build_object({', '.join(pairs)})::text"
        values = ", ".join(f"{self.value(name, row)} AS {quoted(name)}" for name in names)
        return f"(SELECT row_to_json(wide)::text FROM (SELECT {values}) AS wide)"

    def value(self, name: str, row: str) -> str:
        column = f"{row}.{quoted(name)}"
        return _VALUE_OF.get(self.types[name], "{0}").format(column)


def _timestamptz() -> str:
    """
    Write how a timestamp becomes text: an instant in UTC, or the project's local time.

    Without USE_TZ Django knows such a column as local time without a zone.
    """
    if django_settings.USE_TZ:
        return "{0}"
    return "{0} AT TIME ZONE " + literal(django_settings.TIME_ZONE).replace("{", "").replace(
        "}", ""
    )


class _ValueOf(dict):
    """Type name of a column to its expression; a type that is not here writes itself as JSON."""

    def get(self, typename: str, default: str = "{0}") -> str:  # type: ignore[override]
        return _timestamptz() if typename == "timestamptz" else super().get(typename, default)


_VALUE_OF = _ValueOf(
    {
        "json": "{0}::text",
        "jsonb": "{0}::text",
        "bytea": "E'\\\\x' || encode({0}, 'hex')",
        # A year counts 365 days and a month 30, as in psycopg; extract(epoch) says 365.25.
        "interval": (
            "CASE WHEN isfinite({0}) THEN "
            "trunc((extract(epoch FROM {0}) - extract(year FROM {0}) * 21600) * 1000000) END"
        ),
    }
)


def _columns_present(spec: TableSpec, table: Table) -> str:
    """Write the query that counts the columns that are still there, of the type they had."""
    names = ", ".join(literal(column.name) for column in spec.columns)
    special = "".join(
        f"\n            WHEN {literal(column.name)} "
        f"THEN {literal(table.columns[column.name])}::regtype"
        for column in spec.columns
        if table.columns[column.name] in {*_VALUE_OF, "timestamptz"}
    )
    types = f"\n        AND a.atttypid = CASE a.attname{special}\n            ELSE a.atttypid END"
    return (
        f"\n        SELECT count(*) FROM pg_attribute AS a\n"
        f"        WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped\n"
        f"        AND a.attname = ANY (ARRAY[{names}]::name[]){types if special else ''}\n    "
    )


def _indented(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in text.splitlines())
