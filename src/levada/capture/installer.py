"""Compares the triggers that should be there with those that are, and changes the difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from django.conf import settings as django_settings
from django.db import connections, router, transaction
from django.utils import timezone

from levada.conf import Replicated, replicated
from levada.errors import ConfigurationError, UnsupportedModel, UnsupportedVendor
from levada.tables import TableSpec

from . import postgresql, sqlite
from .plan import OUTBOX, REGISTRY, Found, Table, Wanted, present

_VENDORS: dict[str, ModuleType] = {"sqlite": sqlite, "postgresql": postgresql}


def install(alias: str, *, only: Iterable[str] | None = None) -> list[str]:
    """
    Make the triggers of every replicated table of `alias` what they should be.

    only: table names to look at; then triggers of other tables stay as they
    are. Returns the labels whose triggers or registered shape changed. Runs
    no DDL where nothing changed, and each table in a transaction of its own
    (or in the surrounding one). A table that is not there yet is left for
    later. Raises UnsupportedModel, UnsupportedVendor and ConfigurationError.
    """
    state = _read(alias, only)
    if state is None:
        return []
    changed = []
    for label, wanted in state.wanted.items():
        have = state.found.pop(_found_key(state, wanted.spec), Found())
        statements = _difference(wanted, have)
        registered = state.registry.get(label) == wanted.spec.fingerprint
        if statements or not registered:
            _apply(alias, statements, None if registered else wanted.spec)
            changed.append(label)
    if only is None:
        _remove_leftovers(alias, state)
    return changed


def uninstall(alias: str) -> list[str]:
    """Remove every capture trigger and registered shape from `alias`; returns the tables freed."""
    connection = connections[alias]
    vendor = _vendor(connection)
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        found = vendor.found(cursor)
        for each in found.values():
            _run(cursor, _drops(each))
        if REGISTRY in vendor.tables(cursor, [REGISTRY]):
            cursor.execute(f"DELETE FROM {REGISTRY}")
    return sorted(found)


def stale(alias: str) -> list[str]:
    """Return the labels whose triggers are missing, outdated or differently registered."""
    labels = sorted(label for label, each in replicated().items() if _lives_in(each, alias))
    state = _read(alias, None)
    if state is None:
        return labels
    current = {
        label
        for label, wanted in state.wanted.items()
        if not _difference(wanted, state.found.get(_found_key(state, wanted.spec), Found()))
        and state.registry.get(label) == wanted.spec.fingerprint
        and wanted.spec == state.specs[label]
    }
    return [label for label in labels if label not in current]


def trigger_sql(alias: str) -> str:
    """Return the SQL of every trigger that `install(alias)` makes, for a person to read."""
    state = _read(alias, None)
    if state is None:
        return f"-- {alias} has no outbox yet. Run: manage.py migrate --database {alias}\n"
    parts = [
        f"-- Levada captures {len(state.wanted)} tables of {alias!r}. Made by migrate; undone by:\n"
        f"-- manage.py levada uninstall\n{state.vendor.PREAMBLE}"
    ]
    for label, spec in state.specs.items():
        if label not in state.wanted:
            parts.append(f"-- {label}: table {spec.table} does not exist yet, or lacks its key.\n")
            continue
        left_out = f"; never {', '.join(spec.excluded)}" if spec.excluded else ""
        names = ", ".join(column.name for column in state.wanted[label].spec.columns)
        parts.append(f"-- {label}: table {spec.table}, columns {names}{left_out}.")
        parts.append(";\n\n".join(state.wanted[label].create.values()) + ";\n")
    return "\n".join(parts)


def captured_tables(alias: str) -> list[str]:
    """Return the names of the tables whose changes are captured in `alias`, and of the outbox."""
    specs = [each.spec for each in replicated().values() if _lives_in(each, alias)]
    return [*(spec.table for spec in specs), OUTBOX, REGISTRY]


def drop_triggers(alias: str, names: Iterable[str]) -> None:
    """Drop the triggers of the SQLite tables `names`, so that DDL finds none in its way."""
    with connections[alias].cursor() as cursor:
        found = sqlite.found(cursor)
        for name in names:
            _run(cursor, _drops(found.get(name, Found())))


@dataclass(slots=True)
class _State:
    """What the settings want of one database, and what the database has."""

    vendor: ModuleType
    specs: dict[str, TableSpec]
    tables: dict[str, Table]
    wanted: dict[str, Wanted]
    found: dict[str, Found]
    registry: dict[str, str]


def _read(alias: str, only: Iterable[str] | None) -> _State | None:
    """Compare nothing yet: read everything. None where the outbox is not migrated."""
    connection = connections[alias]
    vendor = _vendor(connection)
    specs = {label: each.spec for label, each in replicated().items() if _lives_in(each, alias)}
    if only is not None:
        names = set(only)
        specs = {label: spec for label, spec in specs.items() if spec.table in names}
    with connection.cursor() as cursor:
        tables = vendor.tables(cursor, [*(spec.table for spec in specs.values()), OUTBOX, REGISTRY])
        if OUTBOX not in tables or REGISTRY not in tables:
            return None
        _check_trust(connection, cursor)
        found = vendor.found(cursor)
        cursor.execute(f"SELECT label, fingerprint FROM {REGISTRY}")
        registry = dict(cursor.fetchall())
    wanted = dict(_wanted(vendor, connection, specs, tables))
    return _State(vendor, specs, tables, wanted, found, registry)


def _wanted(
    vendor: ModuleType, connection: Any, specs: dict[str, TableSpec], tables: dict[str, Table]
) -> Iterator[tuple[str, Wanted]]:
    for label, spec in specs.items():
        table = tables.get(spec.table)
        if table is None:
            continue
        _check(connection, spec, table)
        real = present(spec, table)
        if real is not None:
            yield label, vendor.wanted(real, table, tables[OUTBOX])


def _check(connection: Any, spec: TableSpec, table: Table) -> None:
    """Refuse what triggers cannot capture exactly. Raises UnsupportedModel, ConfigurationError."""
    if table.kind != "table":
        raise UnsupportedModel(
            f"{spec.label} is the {table.kind} {spec.table}, which has no row triggers. "
            f"Name the models of the tables behind it in LEVADA['REPLICATE'] instead."
        )
    zone = connection.timezone_name
    has_times = any(column.kind == "timestamp" for column in spec.columns)
    if connection.vendor == "sqlite" and django_settings.USE_TZ and has_times and zone != "UTC":
        raise ConfigurationError(
            f"DATABASES[{connection.alias!r}]['TIME_ZONE'] is {zone!r}, so {spec.label} keeps "
            f"local times that no trigger can convert. Remove TIME_ZONE, or exclude the columns."
        )


def _check_trust(connection: Any, cursor: Any) -> None:
    """Refuse an SQLite connection whose writes would fail on our triggers' JSON functions."""
    if connection.vendor != "sqlite":
        return
    cursor.execute("PRAGMA trusted_schema")
    if cursor.fetchone() == (0,):
        raise ConfigurationError(
            f"DATABASES[{connection.alias!r}] sets PRAGMA trusted_schema = OFF, under which "
            f"SQLite fails writes to tables with Levada's triggers. Remove it from "
            f"OPTIONS['init_command'], or take the models out of LEVADA['REPLICATE']."
        )


def _vendor(connection: Any) -> ModuleType:
    if connection.vendor not in _VENDORS:
        raise UnsupportedVendor(
            f"LEVADA['SOURCE'] {connection.alias!r} is a {connection.vendor} database, which "
            f"Levada has no triggers for. Use SQLite or PostgreSQL as the source."
        )
    return _VENDORS[connection.vendor]


def _lives_in(each: Replicated, alias: str) -> bool:
    return router.allow_migrate_model(alias, each.model)


def _found_key(state: _State, spec: TableSpec) -> str:
    return postgresql.function_name(spec.table) if state.vendor is postgresql else spec.table


def _difference(wanted: Wanted, have: Found) -> list[str]:
    """Return the statements that make `have` into `wanted`, none where they are equal."""
    outdated = [name for name in have.pieces if wanted.pieces.get(name) != have.pieces[name]]
    missing = [name for name in wanted.pieces if wanted.pieces[name] != have.pieces.get(name)]
    # The function is replaced in place: dropping it would take its triggers along.
    drops = [have.drop[name] for name in outdated if name != "function"]
    return drops + [wanted.create[name] for name in missing]


def _drops(have: Found) -> list[str]:
    """Return the statements that remove all of `have`; a dropped function takes its triggers."""
    function = have.drop.get("function")
    return [function] if function else list(have.drop.values())


def _apply(alias: str, statements: list[str], spec: TableSpec | None) -> None:
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        _run(cursor, statements)
        if spec is not None:
            _register(cursor, alias, spec)


def _register(cursor: Any, alias: str, spec: TableSpec) -> None:
    installed_at = connections[alias].ops.adapt_datetimefield_value(timezone.now())
    cursor.execute(f"DELETE FROM {REGISTRY} WHERE label = %s", [spec.label])
    cursor.execute(
        f"INSERT INTO {REGISTRY} (label, fingerprint, spec, installed_at) VALUES (%s, %s, %s, %s)",
        [spec.label, spec.fingerprint, spec.to_json(), installed_at],
    )


def _remove_leftovers(alias: str, state: _State) -> None:
    """Drop the triggers and shapes of tables that are no longer replicated."""
    missing = set(state.specs) - set(state.wanted)
    kept = {_found_key(state, state.specs[label]) for label in missing}
    drops = [sql for key, each in state.found.items() if key not in kept for sql in _drops(each)]
    labels = sorted(set(state.registry) - set(state.specs))
    if not drops and not labels:
        return
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        _run(cursor, drops)
        for label in labels:
            cursor.execute(f"DELETE FROM {REGISTRY} WHERE label = %s", [label])


def _run(cursor: Any, statements: Iterable[str]) -> None:
    for statement in statements:
        cursor.execute(statement)
