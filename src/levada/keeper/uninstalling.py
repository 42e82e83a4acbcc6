"""Leaving: drops the triggers and the tables of Levada in the source, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from django.conf import settings as django_settings
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from .. import conf
from ..conf import settings
from ..errors import AlreadyRunning, ConfigurationError
from .locks import holder
from .parts import lock_path


@dataclass(frozen=True, slots=True)
class Plan:
    """What would go: captured labels, our tables, and changes in the outbox no log holds yet."""

    source: str
    captured: tuple[str, ...]
    tables: tuple[str, ...]
    outbox_rows: int


def plan() -> Plan:
    """Say what `uninstall` would drop. Raises AlreadyRunning while a keeper works."""
    from ..outbox.models import Outbox, ReplicatedTable

    _refuse_while_kept()
    source = settings.SOURCE
    tables = _our_tables()
    captured: tuple[str, ...] = ()
    if ReplicatedTable._meta.db_table in tables:
        found = ReplicatedTable.objects.using(source).order_by("label")
        captured = tuple(found.values_list("label", flat=True))
    rows = 0
    if Outbox._meta.db_table in tables:
        rows = Outbox.objects.using(source).count()
    return Plan(source, captured, tables, rows)


def uninstall() -> None:
    """
    Drop triggers, then unapply our migrations; running it twice is harmless.

    The migrations are unapplied without `migrate`'s signals, which would
    install the triggers again.
    """
    from ..capture import uninstall as drop_triggers

    _refuse_while_kept()
    connection = connections[settings.SOURCE]
    drop_triggers(settings.SOURCE)
    executor = MigrationExecutor(connection)
    executor.migrate([("levada", None)])


def leftovers() -> list[str]:
    """Return the files that uninstall leaves: logs, their locks, the stores."""
    found: list[Path] = []
    try:
        log = conf.log_path()
        found += sorted(log.parent.glob(f"{log.name}*"))
    except ConfigurationError:
        pass  # no log, no file of it
    for alias in conf.store_aliases():
        name = str(django_settings.DATABASES.get(alias, {}).get("NAME") or "")
        if name and name != ":memory:":
            path = Path(name)
            found += sorted(path.parent.glob(f"{path.name}*"))
    return [str(path) for path in found]


def _our_tables() -> tuple[str, ...]:
    from django.apps import apps

    ours = {model._meta.db_table for model in apps.get_app_config("levada").get_models()}
    connection = connections[settings.SOURCE]
    with connection.cursor() as cursor:
        there = {table.name for table in connection.introspection.get_table_list(cursor)}
    return tuple(sorted(ours & there))


def _refuse_while_kept() -> None:
    from .parts import part_specs

    for spec in part_specs():
        path = lock_path(spec.name)
        found = holder(path) if path else None
        if found:
            raise AlreadyRunning(
                f"Process {found.pid} still keeps {spec.name}. Stop it first: kill {found.pid}"
            )
