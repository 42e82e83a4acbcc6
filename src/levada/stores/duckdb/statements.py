"""What a statement's text tells without asking DuckDB: plain functions of SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_NAME = r'(?:"(?:[^"]|"")*"|\w+)'
_COMMAND = re.compile(
    rf"\s*(?:(SAVEPOINT)|(RELEASE)(?:\s+SAVEPOINT)?|(ROLLBACK)(?:\s+(?:TRANSACTION|WORK))?\s+TO"
    rf"(?:\s+SAVEPOINT)?)\s+({_NAME})\s*;?\s*",
    re.IGNORECASE,
)
_PASSIVE = re.compile(
    r"[\s(]*(?:(SELECT|FROM|VALUES|SHOW|DESCRIBE|SUMMARIZE|SET|RESET|PRAGMA|USE|LOAD|INSTALL"
    r"|PREPARE|DEALLOCATE|CHECKPOINT|FORCE|EXPORT|COPY\s[^;()]*\sTO)\b|COPY\s*\(|(WITH|EXPLAIN)\b)",
    re.IGNORECASE,
)
_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|CREATE|ALTER|DROP)\b", re.IGNORECASE)
_DEFINES = re.compile(r"\s*(CREATE|ALTER|DROP|ATTACH|DETACH|COMMENT|IMPORT)\b", re.IGNORECASE)
_SETS_SEQUENCE = re.compile(r"\bsetval\s*\(\s*'((?:[^']|'')+)'", re.IGNORECASE)
_INSERT = re.compile(
    rf"\bINSERT\s+(?:OR\s+\w+\s+)?INTO\s+((?:{_NAME}\s*\.\s*)*({_NAME}))(?:\s+AS\s+{_NAME})?"
    r"\s*(?:(BY\s+NAME)\b|BY\s+POSITION\b|\(([^()]*)\)(?=\s*(?:SELECT|VALUES|FROM|WITH|\(|BY)\b))?",
    re.IGNORECASE,
)
_MERGE = re.compile(rf"\bMERGE\s+INTO\s+(?:{_NAME}\s*\.\s*)*({_NAME})", re.IGNORECASE)
_COPY = re.compile(
    rf"\s*COPY\s+(?:{_NAME}\s*\.\s*)*({_NAME})\s*(?:\(([^()]*)\))?\s*FROM\b", re.IGNORECASE
)
_CALLED = re.compile(r"\s*(EXECUTE|CALL)\b", re.IGNORECASE)
_TEXT = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_TAIL = re.compile(r"\bRETURNING\b(.*)\Z", re.IGNORECASE | re.DOTALL)
_CONFLICTS = re.compile(r"\b(?:ON\s+CONFLICT|OR\s+(?:IGNORE|REPLACE))\b", re.IGNORECASE)
_VOLATILE = re.compile(
    r"\b(?:(nextval|random|uuid|uuidv4|uuidv7|gen_random_uuid|setseed|get_current_time"
    r"|current_localtime|current_localtimestamp)\s*\(|(current_time|localtime|localtimestamp)\b)",
    re.IGNORECASE,
)
_TIMED = re.compile(
    r"\b(?:(?:now|get_current_timestamp|transaction_timestamp|today)\s*\("
    r"|(?:current_timestamp|current_date)\b)",
    re.IGNORECASE,
)

CACHED_CHARACTERS = 2_000
"""Statements up to this length are remembered."""


@dataclass(frozen=True, slots=True)
class SavepointCommand:
    """What is done to the savepoint `name`: `set`, `release`, or `rollback` to it."""

    act: str
    name: str


@dataclass(frozen=True, slots=True)
class Insert:
    """
    The text of an INSERT, MERGE or COPY … FROM.

    table: as in the catalog, without its schema. columns: lower-case names it
    fills, None where it names none. returning: the text after RETURNING, None
    without. all_columns: whether it fills every column by position. plain:
    whether a RETURNING clause may be added at its end. conflicts: whether rows
    may be left out or updated, having drawn a key.
    """

    table: str
    columns: frozenset[str] | None
    returning: str | None
    all_columns: bool
    plain: bool
    conflicts: bool

    def omits(self, column: str) -> bool:
        """Say whether `column` may get its default."""
        if self.columns is not None:
            return column.lower() not in self.columns
        return not self.all_columns

    def returns(self, column: str) -> bool:
        """Say whether `column` seems to be among what is returned; its description tells."""
        told = (self.returning or "").lower()
        return "*" in told or re.search(rf"\b{re.escape(column.lower())}\b", told) is not None


def savepoint_command(sql: str) -> SavepointCommand | None:
    """Return what `sql` does to a savepoint, None for any other statement."""
    if sql.lstrip()[:1] not in "SsRr":
        return None
    found = _COMMAND.fullmatch(sql)
    if found is None:
        return None
    act = "set" if found[1] else "release" if found[2] else "rollback"
    return SavepointCommand(act, unquote(found[4]))


def leaves_no_trace(sql: str) -> bool:
    """
    Say whether a rollback would find nothing of `sql` to undo.

    It reads, or it sets what no transaction holds: settings, files outside.
    """
    found = _PASSIVE.match(sql)
    if found is None or sets_sequences(sql):
        return False
    return (found[2] is None and ";" not in sql) or _WRITES.search(sql) is None


def defines(sql: str) -> bool:
    """Say whether `sql` changes the catalog."""
    return _DEFINES.match(sql) is not None


def sets_sequences(sql: str) -> list[str]:
    """Return the sequences `sql` sets with setval()."""
    if "setval" not in sql and "SETVAL" not in sql:
        return []
    return [last_name(name.replace("''", "'")) for name in _SETS_SEQUENCE.findall(sql)]


def volatile_call(sql: str) -> str | None:
    """Return the first thing in `sql` that would give another value a second time, None if none."""
    called = _CALLED.match(sql)
    if called is not None:  # nobody sees what it does
        return called[1].upper()
    if _VOLATILE.search(sql) is None:
        return None
    if defines(sql) and re.search(r"\bAS\b", sql, re.IGNORECASE) is None:
        return None  # a default that is declared, not drawn
    found = _VOLATILE.search(_TEXT.sub("''", sql))
    if found is None:
        return None
    return f"{found[1].lower()}()" if found[1] else found[2].lower()


def tells_time(sql: str) -> bool:
    """Say whether `sql` asks for the transaction's time."""
    return _TIMED.search(sql) is not None and _TIMED.search(_TEXT.sub("''", sql)) is not None


@dataclass(frozen=True, slots=True)
class Statement:
    """What there is to know of a statement: its text is read once, however often it runs."""

    command: SavepointCommand | None
    leaves_no_trace: bool
    defines: bool
    insert: Insert | None


def read(sql: str) -> Statement:
    """Return what the text of `sql` tells."""
    # A long VALUES list is not worth a place in the cache.
    return _cached_read(sql) if len(sql) <= CACHED_CHARACTERS else _read(sql)


def _read(sql: str) -> Statement:
    return Statement(savepoint_command(sql), leaves_no_trace(sql), defines(sql), insert_of(sql))


_cached_read = lru_cache(maxsize=512)(_read)


def insert_of(sql: str) -> Insert | None:
    """Return what there is to know of a statement that inserts, None for another."""
    found = _INSERT.search(sql)
    if found is None:
        return _merge_of(sql) or _copy_of(sql)
    bare = _TEXT.sub("x", sql[found.end() :])
    tail = _TAIL.search(sql, found.end()) if _TAIL.search(bare) else None
    by_position = found[3] is None and re.search(r"\bDEFAULT\b", bare, re.IGNORECASE) is None
    columns = None
    if found[4] is not None and by_position:
        columns = frozenset(unquote(name).lower() for name in re.findall(_NAME, found[4]))
    return Insert(
        table=unquote(found[2]),
        columns=columns,
        returning=tail[1] if tail else None,
        all_columns=found[4] is None and by_position,
        plain=not any(mark in bare for mark in (";", "--", "/*")),
        conflicts=_CONFLICTS.search(found[0]) is not None or _CONFLICTS.search(bare) is not None,
    )


def _merge_of(sql: str) -> Insert | None:
    found = _MERGE.search(sql)
    if found is None:
        return None
    bare = _TEXT.sub("x", sql[found.end() :])
    tail = _TAIL.search(sql, found.end()) if _TAIL.search(bare) else None
    return Insert(
        table=unquote(found[1]),
        columns=None,
        returning=tail[1] if tail else None,
        all_columns=False,
        plain=not any(mark in bare for mark in (";", "--", "/*")),
        conflicts=True,
    )


def _copy_of(sql: str) -> Insert | None:
    found = _COPY.match(sql)
    if found is None:
        return None
    columns = None
    if found[2] is not None:
        columns = frozenset(unquote(name).lower() for name in re.findall(_NAME, found[2]))
    return Insert(
        table=unquote(found[1]),
        columns=columns,
        returning=None,
        all_columns=columns is None,
        plain=False,
        conflicts=False,
    )


def last_name(name: str) -> str:
    """Return the last part of a name that may have a schema, as the catalog has it."""
    parts = re.findall(_NAME, name)
    return unquote(parts[-1]) if parts else name


def unquote(name: str) -> str:
    """Return an identifier as the catalog has it."""
    if len(name) > 1 and name.startswith('"') and name.endswith('"'):
        return name[1:-1].replace('""', '"')
    return name
