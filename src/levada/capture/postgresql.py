"""
Capture on PostgreSQL: one function a table and four statement triggers that call it.

Traps this function was made around:

- Joining the old and the new rows of an UPDATE by a cached plan can become a
  nested loop over both: 20,000 rows took 113 s. A FULL JOIN cannot; it also
  yields an altered primary key as one row gone and one row come.
- A DBA renames, drops or retypes a column. A name that the table no longer has
  is then found in the row `gone` that stands around each query, the change
  carries the fingerprint `drifted`, and the user's statement goes on. Looking
  the columns up in the catalogue cost 13 µs a statement, this costs none.
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
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings as django_settings

from levada.changes import CHANGES
from levada.tables import TableSpec

from .plan import DRIFTED, PREFIX, VERSION, Found, Table, Wanted, literal, quoted

PREAMBLE = """\
--
-- Each function runs as its owner, so that a role without rights on the outbox can still write.
"""
"""What `levada triggers --sql` says before the first trigger."""

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
    pieces, create = (
        {"function": body.strip()},
        {"function": _function(function, body, table.columns.values())},
    )
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


def _function(name: str, body: str, types: Iterable[str]) -> str:
    needed = set(types)
    settings = "SET search_path = pg_catalog, pg_temp\n"
    if "timestamptz" in needed:
        settings += "SET timezone = 'UTC'\n"
    if needed & {"float4", "float8"}:
        settings += "SET extra_float_digits = 1\n"
    return (
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger\n"
        f"LANGUAGE plpgsql SECURITY DEFINER\n{settings}"
        f"AS $levada${body}$levada$;\n"
        f"REVOKE ALL ON FUNCTION {name}() FROM PUBLIC"
    )


def _body(spec: TableSpec, table: Table, outbox: Table) -> str:
    image = _Image(spec, table.columns)
    target, here = _name(outbox.schema, outbox.name), _name(table.schema, table.name)
    note = literal(f"levada.nested_{hashlib.sha256(spec.table.encode()).hexdigest()[:12]}")
    return f"""
-- Levada v{VERSION} writes each change of {_comment(spec.label)} into its outbox.
#variable_conflict use_column
DECLARE
    -- Set when a statement inside another trigger has already written to this table.
    nested boolean := current_setting({note}, true) = '1';
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        -- A partition emptied alone is no empty table; the store has to look again.
{_indented(_truncated(spec, table, target), 8)};
    ELSIF nested THEN
        -- Rows may have changed once more since this statement: read them from the table.
        IF TG_OP = 'INSERT' THEN
{_indented(_rows(spec, target, image.inserted(here)), 12)};
        ELSIF TG_OP = 'DELETE' THEN
{_indented(_rows(spec, target, image.deleted(here)), 12)};
        ELSE
{_indented(_rows(spec, target, image.updated(here)), 12)};
        END IF;
    ELSIF TG_OP = 'INSERT' THEN
{_indented(_rows(spec, target, image.inserted()), 8)};
    ELSIF TG_OP = 'DELETE' THEN
{_indented(_rows(spec, target, image.deleted()), 8)};
    ELSE
{_indented(_rows(spec, target, image.updated()), 8)};
    END IF;
    IF pg_trigger_depth() > 1 THEN
        PERFORM set_config({note}, '1', true);
    ELSIF nested THEN
        PERFORM set_config({note}, '', true);
    END IF;
    RETURN NULL;
END
"""


def _comment(text: str) -> str:
    return text.replace("\n", " ")


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


def _truncated(spec: TableSpec, table: Table, outbox: str) -> str:
    """Write the outbox row of a TRUNCATE: no key, no images."""
    whole = f"TG_TABLE_NAME = {literal(table.name)}"
    return (
        f"{_INTO.format(outbox=outbox)}\n"
        f"SELECT {literal(CHANGES)}, {literal(spec.label)}, 't', NULL, NULL, NULL,\n"
        f"    CASE WHEN {whole} THEN {literal(spec.fingerprint)} ELSE {literal(DRIFTED)} END,\n"
        f"    {_XID}, {_NOW},\n    {_CONTEXT}"
    )


def _rows(spec: TableSpec, outbox: str, rows: str) -> str:
    """Write one outbox row for each of `rows` (op, key, before, after, drifted) that differs."""
    gone = ", ".join(f"NULL::{_GONE} AS {quoted(column.name)}" for column in spec.columns)
    return (
        f"{_INTO.format(outbox=outbox)}\n"
        f"SELECT {literal(CHANGES)}, {literal(spec.label)},\n"
        f"    change.op, change.key, change.before, change.after,\n"
        f"    CASE WHEN change.drifted THEN {literal(DRIFTED)} "
        f"ELSE {literal(spec.fingerprint)} END,\n"
        f"    {_XID}, {_NOW},\n    {_CONTEXT}\n"
        f"FROM (SELECT {gone}) AS gone,\n"
        f"LATERAL (\n{_indented(rows, 4)}\n    OFFSET 0  -- or each image is made twice\n"
        f") AS change\nWHERE change.before IS DISTINCT FROM change.after OR change.drifted"
    )


_GONE = "pg_lsn"
"""The type that marks a column that is gone: no Django field has it."""


class _Image:
    """
    The SELECTs that turn transition tables into op, key, before, after, drifted.

    With `table` they read what is in the table now instead of the new rows.
    """

    def __init__(self, spec: TableSpec, types: Mapping[str, str]) -> None:
        self.spec = spec
        self.types = types

    def inserted(self, table: str = "") -> str:
        now, rows = "n", f"{self.arm('levada_new')} AS n"
        if table:
            now, rows = "t", f"{rows}\nJOIN {self.arm(table)} AS t ON {self.on('t', 'n')}"
        return (
            f"SELECT 'c' AS op, {self.key(now)} AS key, NULL::text AS before,\n"
            f"    {self.row(now)} AS after,\n    {self.drifted(now)} AS drifted\nFROM {rows}"
        )

    def deleted(self, table: str = "") -> str:
        op, after, rows = "'d'", "NULL::text", f"{self.arm('levada_old')} AS o"
        if table:
            op = "CASE WHEN t.levada_here THEN 'u' ELSE 'd' END"
            after = f"CASE WHEN t.levada_here THEN {self.row('t')} END"
            rows += f"\nLEFT JOIN {self.arm(table)} AS t ON {self.on('t', 'o')}"
        return (
            f"SELECT {op} AS op, {self.key('o')} AS key, {self.row('o')} AS before,\n"
            f"    {after} AS after,\n    {self.drifted('o')} AS drifted\nFROM {rows}"
        )

    def updated(self, table: str = "") -> str:
        old, new = self.arm("levada_old", "OFFSET 0"), self.arm("levada_new", "OFFSET 0")
        now, rows = "n", f"{old} AS o FULL JOIN {new} AS n ON {self.on('n', 'o')}"
        if table:
            names = [quoted(name) for name in self.spec.key]
            same = " AND ".join(f"t.{k} = coalesce(n.{k}, o.{k})" for k in names)
            now, rows = "t", f"{rows}\nLEFT JOIN {self.arm(table)} AS t ON {same}"
        return (
            f"SELECT CASE WHEN {now}.levada_here IS NULL THEN 'd' "
            f"WHEN o.levada_here IS NULL THEN 'c' ELSE 'u' END AS op,\n"
            f"    CASE WHEN {now}.levada_here THEN {self.key(now)} "
            f"ELSE {self.key('o')} END AS key,\n"
            f"    CASE WHEN o.levada_here THEN {self.row('o')} END AS before,\n"
            f"    CASE WHEN {now}.levada_here THEN {self.row(now)} END AS after,\n"
            f"    {self.drifted('o')} AS drifted\nFROM {rows}"
        )

    def arm(self, source: str, barrier: str = "") -> str:
        """Read the columns by bare name: one that `source` lacks is found in `gone`."""
        names = ", ".join(quoted(column.name) for column in self.spec.columns)
        return f"(SELECT true AS levada_here, {names} FROM {source} {barrier}".rstrip() + ")"

    def on(self, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{quoted(k)} = {right}.{quoted(k)}" for k in self.spec.key)

    def drifted(self, row: str) -> str:
        types = (f"pg_typeof({row}.{quoted(column.name)})" for column in self.spec.columns)
        return f"'{_GONE}'::regtype IN ({', '.join(types)})"

    def key(self, row: str) -> str:
        values = (f"to_json({self.value(name, row)})" for name in self.spec.key)
        return "'[' || " + " || ',' || ".join(values) + " || ']'"

    def row(self, row: str) -> str:
        names = [column.name for column in self.spec.columns]
        if len(names) <= 50:  # a function takes 100 arguments
            pairs = (f"{literal(name)}, {self.value(name, row)}" for name in names)
            return "json_build_object(\n    " + ",\n    ".join(pairs) + ")::text"
        values = ", ".join(f"{self.value(name, row)} AS {quoted(name)}" for name in names)
        return f"(SELECT row_to_json(levada_row)::text FROM (SELECT {values}) AS levada_row)"

    def value(self, name: str, row: str) -> str:
        """Write one column as JSON knows it; of another type by then, as that type's JSON."""
        column, typename = f"{row}.{quoted(name)}", self.types[name]
        if typename in ("json", "jsonb"):
            return f"{column}::text"
        special = _special(typename)
        if not special:
            return column
        # By way of text the cast is legal whatever type the column has become.
        value = special.format(f"{column}::text::{typename}")
        typed = f"pg_typeof({column}) = '{typename}'::regtype"
        return f"CASE WHEN {typed} THEN to_json({value}) ELSE to_json({column}) END"


def _special(typename: str) -> str:
    """Return how values of a type are written that their own JSON does not say, '' for most."""
    if typename == "bytea":
        return "E'\\\\x' || encode({0}, 'hex')"
    if typename == "interval":
        # A year counts 365 days and a month 30, as in psycopg; extract(epoch) says 365.25.
        return (
            "CASE WHEN isfinite({0}) THEN "
            "trunc((extract(epoch FROM {0}) - extract(year FROM {0}) * 21600) * 1000000) END"
        )
    if typename == "timestamptz" and not django_settings.USE_TZ:
        # Without USE_TZ Django knows the column as the project's local time, without a zone.
        return "{0} AT TIME ZONE " + literal(django_settings.TIME_ZONE)
    return ""


def _indented(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in text.splitlines())
