"""
Capture on SQLite: four row triggers a table, with every column written out.

Traps these triggers were made around:

- json_object() raises on a BLOB, and SQLite lets a BLOB into any column. Each
  column is written by an expression that looks at the stored type first, so
  no stored value can make a user's statement fail. A value of a type its
  column should not have travels as a JSON string (a BLOB as "\\\\x…") and it
  is the store that refuses it.
- SQLite prints 0.1 + 0.2 as 0.3: floats go through printf('%!.20g').
  17 digits would do, but SQLite 3.40 rounds the 17th wrongly in one double of
  400, mostly of exponents beyond ±100; with 20 each of 600,000 came back.
- A table's own triggers may change the row again, and SQLite does not say
  which trigger runs first. So the image after a change is read from the
  table, not from NEW, and a deleted row that is back again is no deletion.
- Comparing OLD and NEW needs COLLATE BINARY, or a NOCASE column hides 'a' to 'A'.
"""

from __future__ import annotations

from typing import Any

from levada.changes import CHANGES
from levada.tables import ColumnSpec, TableSpec

from .plan import OUTBOX, PREFIX, VERSION, Found, Table, Wanted, joined, literal, quoted

TRANSACTION, CONTEXT = "printf", "strftime"
"""
Without arguments these functions of SQLite are NULL, to any client. Django's
connections define them anew, for no arguments only: the number of the
transaction, and the context. A function of our own would fail the writes of
every client that does not have it; a TEMP trigger that adds the two to each
outbox row afterwards costs 3.9 µs a row instead of 0.3.
"""

PREAMBLE = """\
--
-- printf() and strftime() without arguments are NULL to every client but Django's connections,
-- which define them as the transaction's number and the context. No statement can fail on them.
"""
"""What `levada triggers --sql` says before the first trigger."""

EVENTS = ("insert", "update", "rekey", "delete")

_TABLES = """
SELECT m.name, m.type, x.name, x.type
FROM sqlite_master AS m, pragma_table_xinfo(m.name) AS x
WHERE m.type IN ('table', 'view') AND m.name IN ({})
"""
_TRIGGERS = """
SELECT tbl_name, name, sql FROM sqlite_master
WHERE type = 'trigger' AND name LIKE 'levada~_capture~_%' ESCAPE '~'
"""


def tables(cursor: Any, names: list[str]) -> dict[str, Table]:
    """Return those of `names` that exist, views included."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for at in range(0, len(names), 500):
        some = names[at : at + 500]
        cursor.execute(_TABLES.format(", ".join(["%s"] * len(some))), some)
        for table, kind, column, column_type in cursor.fetchall():
            found.setdefault(table, (kind, {}))[1][column] = column_type
    return {name: Table(name, columns, kind=kind) for name, (kind, columns) in found.items()}


def found(cursor: Any) -> dict[str, Found]:
    """Return the capture triggers there are, by table."""
    cursor.execute(_TRIGGERS)
    result: dict[str, Found] = {}
    for table, name, sql in cursor.fetchall():
        each = result.setdefault(table, Found())
        each.pieces[name] = sql
        each.drop[name] = f"DROP TRIGGER {quoted(name)}"
    return result


def wanted(spec: TableSpec, table: Table, outbox: Table) -> Wanted:
    """Return the triggers that capture `spec`'s columns of `table` into `outbox`."""
    sql = {f"{PREFIX}{spec.table}_{event}": _TRIGGER_OF[event](spec).strip() for event in EVENTS}
    return Wanted(spec, pieces=sql, create=sql)


def _insert_trigger(spec: TableSpec) -> str:
    return _trigger(spec, "insert", "AFTER INSERT", "", [_record(spec, "c", after=True)])


def _update_trigger(spec: TableSpec) -> str:
    changed = [_differs(column.name) for column in spec.columns if column.name not in spec.key]
    same_key = joined([_same(name) for name in spec.key], "AND")
    when = f"{same_key}\n  AND ({joined(changed, 'OR') if changed else 'FALSE'})"
    body = [_record(spec, "u", before=True, after=True)]
    return _trigger(spec, "update", "AFTER UPDATE", when, body)


def _rekey_trigger(spec: TableSpec) -> str:
    when = joined([_differs(name) for name in spec.key], "OR")
    body = [_record(spec, "d", before=True), _record(spec, "c", after=True)]
    return _trigger(spec, "rekey", "AFTER UPDATE", when, body)


def _delete_trigger(spec: TableSpec) -> str:
    return _trigger(spec, "delete", "AFTER DELETE", "", [_record(spec, "d", before=True)])


_TRIGGER_OF = {
    "insert": _insert_trigger,
    "update": _update_trigger,
    "rekey": _rekey_trigger,
    "delete": _delete_trigger,
}
_SAYS = {
    "insert": "a row came",
    "update": "a row changed in a column that is replicated",
    "rekey": "a row changed its primary key: its old key goes, its new key comes",
    "delete": "a row went, and no other trigger has put it back",
}


def _trigger(spec: TableSpec, event: str, timing: str, when: str, body: list[str]) -> str:
    name, table = quoted(f"{PREFIX}{spec.table}_{event}"), quoted(spec.table)
    condition = f"\nWHEN {when}" if when else ""
    return (
        f"CREATE TRIGGER {name} {timing} ON {table}{condition}\n"
        f"BEGIN\n  -- {_comment(spec.label)}: {_SAYS[event]} (Levada, v{VERSION}).\n"
        + "\n".join(body)
        + "\nEND"
    )


def _comment(text: str) -> str:
    return text.replace("\n", " ")


def _record(spec: TableSpec, op: str, *, before: bool = False, after: bool = False) -> str:
    """Write the INSERT of one outbox row; its after-image is the row as the table has it now."""
    row = "now_" if after else "OLD"
    key = ", ".join(_value(spec.column(name), row) for name in spec.key)
    table = quoted(spec.table)
    if after:
        source = f"FROM {table} AS now_\n  WHERE {_at_key(spec, 'now_', 'NEW')}"
    else:
        here = _at_key(spec, "now_", "OLD")
        source = f"WHERE NOT EXISTS (SELECT 1 FROM {table} AS now_ WHERE {here})"
    return (
        f"  INSERT INTO {quoted(OUTBOX)}\n"
        f"    (topic, label, op, key, before, after, fingerprint,\n"
        f'     changed_at, "transaction", context)\n'
        f"  SELECT {literal(CHANGES)}, {literal(spec.label)}, {literal(op)},\n"
        f"    json_array({key}),\n"
        f"    {_image(spec, 'OLD') if before else 'NULL'},\n"
        f"    {_image(spec, 'now_') if after else 'NULL'},\n"
        f"    {literal(spec.fingerprint)},\n"
        f"    strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'), {TRANSACTION}(), {CONTEXT}()\n"
        f"  {source};"
    )


def _at_key(spec: TableSpec, row: str, other: str) -> str:
    return " AND ".join(f"{row}.{quoted(name)} IS {other}.{quoted(name)}" for name in spec.key)


def _same(name: str) -> str:
    return f"OLD.{quoted(name)} COLLATE BINARY IS NEW.{quoted(name)}"


def _differs(name: str) -> str:
    return f"OLD.{quoted(name)} COLLATE BINARY IS NOT NEW.{quoted(name)}"


def _image(spec: TableSpec, row: str) -> str:
    """Write one JSON object: column name to value, as `levada.tables` says."""
    pairs = [f"{literal(column.name)}, {_value(column, row)}" for column in spec.columns]
    objects = [
        "json_object(\n      " + ",\n      ".join(pairs[at : at + _PAIRS]) + ")"
        for at in range(0, len(pairs), _PAIRS)
    ]
    if len(objects) == 1:
        return objects[0]
    # {"a":1} and {"b":2} become {"a":1,"b":2}; no value is an object itself.
    members = " || ',' ||\n    ".join(f"trim({each}, '{{}}')" for each in objects)
    return f"'{{' || {members} || '}}'"


_PAIRS = 60
"""A function takes 127 arguments."""


def _value(column: ColumnSpec, row: str) -> str:
    """Write one column as an argument of json_object(); it never raises."""
    return _VALUE_OF.get(column.kind, _plain)(f"{row}.{quoted(column.name)}", column)


def _hex(name: str) -> str:
    return f"'\\x' || lower(hex({name}))"


def _plain(name: str, column: ColumnSpec) -> str:
    # Every BLOB is greater than or equal to the empty one, and nothing else is.
    return f"iif({name} >= x'', {_hex(name)}, {name})"


def _as_json(name: str) -> str:
    """Write what has no place in a column of numbers as the text of a JSON string."""
    return f"json_quote(iif({name} >= x'', {_hex(name)}, {name}))"


def _boolean(name: str, column: ColumnSpec) -> str:
    return f"json(CASE {name} WHEN 1 THEN 'true' WHEN 0 THEN 'false' ELSE {_as_json(name)} END)"


def _float(name: str, column: ColumnSpec) -> str:
    return (
        f"json(CASE WHEN {name} >= '' THEN {_as_json(name)} "
        f"WHEN abs({name}) < 9e999 THEN printf('%!.20g', {name}) {_infinite(name)} END)"
    )


def _infinite(name: str) -> str:
    return f"WHEN {name} > 0 THEN '\"Infinity\"' WHEN {name} < 0 THEN '\"-Infinity\"'"


def _timestamp(name: str, column: ColumnSpec) -> str:
    return f"iif({name} >= x'', {_hex(name)}, replace({name}, ' ', 'T'))"


def _uuid(name: str, column: ColumnSpec) -> str:
    groups = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    parts = " || '-' || ".join(f"substr({name}, {at}, {size})" for at, size in groups)
    return (
        f"CASE WHEN {name} >= x'' THEN {_hex(name)} "
        f"WHEN length({name}) = 32 THEN {parts} ELSE {name} END"
    )


def _binary(name: str, column: ColumnSpec) -> str:
    return f"iif({name} IS NULL, NULL, {_hex(name)})"


def _decimal(name: str, column: ColumnSpec) -> str:
    """
    Write a decimal with the column's places, equal to what Django reads.

    SQLite keeps a decimal as an integer or a double. Django rounds the double
    to 15 digits and then half-even to the column's places. A value that was
    computed in the database may lie right between two; only then is the half
    looked at in decimal.
    """
    places = column.decimal_places
    whole = f"WHEN typeof({name}) = 'integer' THEN {name}"
    if places is None:
        cases = f"{whole} WHEN abs({name}) < 9e999 THEN printf('%.15g', {name})"
    else:
        number, exact = name, ""
        if (column.max_digits or 0) > 15:
            number = f"CAST(printf('%.15g', {name}) AS REAL)"
            exact = whole + (f" || '.{'0' * places}' " if places else " ")
        scaled, fixed = f"{number} * 1e{places}", f"printf('%.{places}f', {{}})"
        half = fixed.format(f"2 * round({scaled} / 2) / 1e{places}")
        cases = (
            f"{exact}WHEN abs({scaled} - round({scaled})) < 0.499 THEN {fixed.format(number)} "
            f"WHEN substr(printf('%.15g', {scaled}), -2) = '.5' THEN {half} "
            f"WHEN abs({name}) < 9e999 THEN {fixed.format(number)}"
        )
    return f"json(CASE WHEN {name} >= '' THEN {_as_json(name)} {cases} {_infinite(name)} END)"


_VALUE_OF = {
    "boolean": _boolean,
    "float": _float,
    "decimal": _decimal,
    "timestamp": _timestamp,
    "uuid": _uuid,
    "binary": _binary,
}
"""Kinds that JSON, or this database, writes in another way; the rest are `_plain`."""
