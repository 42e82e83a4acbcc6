"""
Rows that one INSERT … ON CONFLICT may hold.

DuckDB 2.0.0 compares the rows of such a statement with each other before it
looks at the table: it takes two NULLs of a unique column for equal, and drops
a row for the sake of one that it drops as well. Rows are lost without a word.
A statement whose rows have no key in common gives what each row by itself does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db.models.constants import OnConflict


def apart(query: Any, objs: Sequence[Any]) -> Iterator[list[Any]]:
    """Split the objects of an INSERT, in order, where one has a key of an earlier one."""
    keys = _keys(query)
    part: list[Any] = []
    seen: list[set[Any]] = [set() for _ in keys]
    for each in objs:
        values = [_values(each, key) for key in keys]
        if any(value is None or value in known for value, known in zip(values, seen, strict=True)):
            if part:
                yield part
            part, seen = [], [set() for _ in keys]
        part.append(each)
        for value, known in zip(values, seen, strict=True):
            known.add(value)
    if part:
        yield part


def _keys(query: Any) -> list[tuple[Any, ...]]:
    """Return the fields of each unique key that a conflict may be about."""
    meta = query.get_meta()
    if query.on_conflict == OnConflict.UPDATE:
        keys = [tuple(query.unique_fields)]
    else:
        keys = [tuple(meta.pk_fields)]
        keys += [(field,) for field in meta.local_concrete_fields if field.unique]
        named = (*meta.unique_together, *(each.fields for each in meta.total_unique_constraints))
        keys += [tuple(map(meta.get_field, names)) for names in named]
    given = set(query.fields)
    # A key that the database draws is another one in each row.
    return [key for key in dict.fromkeys(keys) if given.intersection(key)]


def _values(each: Any, key: Sequence[Any]) -> tuple[Any, ...] | None:
    """Return an object's values of a key, None where only the database knows them."""
    found = []
    for field in key:
        value = getattr(each, field.attname)
        made = getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False)
        if made or hasattr(value, "resolve_expression"):
            return None
        value = field.get_prep_value(value)
        try:
            hash(value)
        except TypeError:
            return None
        found.append(value)
    return tuple(found)
