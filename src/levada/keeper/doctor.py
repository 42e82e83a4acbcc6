"""
Looks at everything that can be wrong with a running installation, and says what to type.

Each examination is a function that yields findings; one that breaks becomes a
finding itself. They only read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import WARNING, run_checks
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from .. import conf
from ..changes import CHANGES, Position
from ..conf import settings
from ..errors import ForeignPosition, LevadaError
from .locks import holder
from .parts import lock_path, part_specs
from .status import read_log, size_bytes
from .words import count, seconds, size

RUN = "Run: manage.py levada run"
OK, NOTE, PROBLEM = "ok", "note", "problem"

OLDEST_POSTGRESQL = 130_000  # pg_current_snapshot() and xid8 came with 13
LEAST_FREE_BYTES = 1_000_000_000
LONG_TRANSACTION_S = 300
CLOCK_S = 2.0
MANY_WAITING = 100_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found: `state` is ok, note or problem; `todo` is what to type, '' for nothing."""

    state: str
    what: str
    todo: str = ""


Examination = Callable[[], Iterator[Finding]]


def examine() -> Iterator[Finding]:
    """Yield every finding, in the order data moves."""
    for examination in EXAMINATIONS:
        try:
            yield from examination()
        except Exception as error:
            what, _, todo = str(error).partition(". ")
            name = examination.__name__.strip("_").replace("_", " ")
            if not isinstance(error, LevadaError):
                todo = todo or "Mend the cause, then run: manage.py levada doctor"
            yield Finding(PROBLEM, f"{name}: {what or type(error).__name__}", todo)


def _settings() -> Iterator[Finding]:
    messages = run_checks(tags=["levada"], databases=[settings.SOURCE])
    for message in messages:
        state = PROBLEM if message.level > WARNING else NOTE
        yield Finding(state, f"{message.msg} ({message.id})", message.hint or "")
    if not messages:
        yield Finding(OK, "The settings are sound.")


def _migrations() -> Iterator[Finding]:
    executor = MigrationExecutor(connections[settings.SOURCE])
    ours = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "levada"]
    missing = executor.migration_plan(ours)
    if missing:
        names = ", ".join(migration.name for migration, _ in missing)
        yield Finding(
            PROBLEM,
            f"{settings.SOURCE!r} lacks the migrations {names}.",
            "Run: manage.py migrate",
        )
    else:
        yield Finding(OK, f"{settings.SOURCE!r} has our tables.")


def _triggers() -> Iterator[Finding]:
    from ..capture import stale

    outdated = stale(settings.SOURCE)
    if outdated:
        yield Finding(
            PROBLEM,
            f"The triggers of {', '.join(outdated)} are missing or outdated: changes of these "
            f"tables are lost.",
            "Run: manage.py levada triggers --install, then: manage.py levada verify",
        )
    else:
        yield Finding(OK, f"Triggers capture {count(len(conf.replicated()), 'table')}.")


def _source_database() -> Iterator[Finding]:
    connection = connections[settings.SOURCE]
    if connection.vendor == "postgresql":
        yield from _postgresql(connection)
    elif connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("SELECT sqlite_version()")
            yield Finding(OK, f"The source is SQLite {cursor.fetchone()[0]}.")


def _postgresql(connection: Any) -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        version = int(cursor.fetchone()[0])
        if version < OLDEST_POSTGRESQL:
            yield Finding(
                PROBLEM,
                f"The source is PostgreSQL {version // 10_000}; the relay needs 13 or newer.",
                "Upgrade the server.",
            )
            return
        yield Finding(OK, f"The source is PostgreSQL {version // 10_000}.")
        yield from _rights(cursor)
        yield from _long_transactions(cursor)


def _rights(cursor: Any) -> Iterator[Finding]:
    """Look whether this user may read and empty the outbox, and read the replicated tables."""
    wanted = {"levada_outbox": "SELECT, DELETE", "levada_table": "SELECT"}
    wanted |= {each.model._meta.db_table: "SELECT" for each in conf.replicated().values()}
    missing = []
    for table, rights in wanted.items():
        for right in rights.split(", "):
            cursor.execute("SELECT has_table_privilege(to_regclass(%s), %s)", [f'"{table}"', right])
            if cursor.fetchone()[0] is False:
                missing.append((table, right))
    cursor.execute("SELECT current_user")
    user = cursor.fetchone()[0]
    for table, right in missing:
        yield Finding(
            PROBLEM,
            f"{user} may not {right} {table}.",
            f'As its owner: GRANT {right} ON "{table}" TO "{user}"',
        )
    if not missing:
        yield Finding(OK, f"{user} has the rights it needs.")


def _long_transactions(cursor: Any) -> Iterator[Finding]:
    """An open transaction delays nothing but its own changes, and the outbox's vacuum."""
    cursor.execute(
        "SELECT pid, extract(epoch FROM now() - xact_start) FROM pg_stat_activity "
        "WHERE datname = current_database() AND backend_xid IS NOT NULL "
        "AND now() - xact_start > make_interval(secs => %s) ORDER BY xact_start",
        [LONG_TRANSACTION_S],
    )
    for pid, age_s in cursor.fetchall():
        yield Finding(
            NOTE,
            f"Process {pid} has had a transaction open for {seconds(float(age_s))}: its changes "
            f"wait for its commit.",
            f"If nobody needs it: SELECT pg_terminate_backend({pid})",
        )


def _clock() -> Iterator[Finding]:
    connection = connections[settings.SOURCE]
    sql = {
        "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
        "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
    }.get(connection.vendor)
    if sql is None:
        return
    with connection.cursor() as cursor:
        cursor.execute(sql)
        difference_s = abs(float(cursor.fetchone()[0]) - datetime.now(UTC).timestamp())
    if difference_s > CLOCK_S:
        yield Finding(
            NOTE,
            f"The clocks of {settings.SOURCE!r} and this host differ by {seconds(difference_s)}: "
            f"the lag in seconds is wrong by as much.",
            "Synchronise both with NTP: timedatectl set-ntp true",
        )
    else:
        yield Finding(OK, "The clocks of the source and this host agree.")


def _outbox() -> Iterator[Finding]:
    from ..outbox.models import Outbox

    rows = Outbox.objects.using(settings.SOURCE).count()
    path = lock_path("relay")
    kept = path is None or holder(path) is not None
    if rows and not kept:
        yield Finding(
            PROBLEM if rows >= MANY_WAITING else NOTE,
            f"{count(rows, 'change')} wait in the outbox and nobody relays them.",
            RUN,
        )
    elif rows >= MANY_WAITING:
        yield Finding(
            NOTE,
            f"{count(rows, 'change')} wait in the outbox: the relay is behind.",
            "See: manage.py levada status",
        )
    else:
        yield Finding(OK, f"{count(rows, 'change')} in the outbox.")


def _log() -> Iterator[Finding]:
    if lock_path("relay") and not conf.log_path().exists():
        yield Finding(NOTE, f"There is no log at {conf.log_path()} yet.", RUN)
        return
    log = read_log()
    if log.error:
        what, _, todo = log.error.partition(". ")
        yield Finding(PROBLEM, f"The log {log.place}: {what}.", todo)
        return
    yield Finding(OK, f"The log {log.place} can be read, {size(log.size_bytes)}.")
    begins = {each.topic: each.begin for each in log.topics}
    for group in log.groups:
        if group.offset < begins.get(group.topic, 0):
            yield Finding(
                PROBLEM,
                f"{group.group} is at {group.topic}:{group.offset}, but the log begins at "
                f"{begins[group.topic]}: it lost records.",
                f"Run: manage.py levada replay {group.group} --topic {group.topic}",
            )


def _retention() -> Iterator[Finding]:
    """A group that never comes back keeps the log from ever shrinking."""
    from ..log import open_log

    if read_log().error:
        return
    log = open_log()
    parts = {spec.name.partition(":")[2] for spec in part_specs()}
    for group, positions in log.groups().items():
        if group not in parts:
            yield Finding(
                NOTE,
                f"The log keeps records for the group {group!r}, which nothing in this project "
                f"reads any more: neither a store nor a handler has that name.",
                f"Run: manage.py levada leave {group}",
            )
            continue
        late_s = max((log.age_s(position) for position in positions.values()), default=0.0)
        if late_s > settings.LOG_RETENTION_S:
            yield Finding(
                NOTE,
                f"The log keeps records for the group {group!r}, which is {seconds(late_s)} "
                f"behind.",
                "See: manage.py levada status",
            )


def _stores() -> Iterator[Finding]:
    log = read_log()
    for alias in conf.store_aliases():
        yield from _store(alias, log.epoch if not log.error else "")


def _store(alias: str, epoch: str) -> Iterator[Finding]:
    from ..stores import open_store

    with closing(open_store(alias, create=False)) as store:
        position, held = store.position(), store.specs()
    if position is None:
        yield Finding(NOTE, f"{alias} was never filled.", RUN)
        return
    if epoch:
        yield _position(alias, position, epoch)
    missing = sorted(set(conf.replicated_in(alias)) - set(held))
    if missing:
        yield Finding(
            NOTE,
            f"{alias} lacks {', '.join(missing)}.",
            f"Run: manage.py levada rebuild {alias} "
            + " ".join(f"--table {label}" for label in missing),
        )


def _position(alias: str, position: Position, epoch: str) -> Finding:
    from ..log import open_log

    rebuild = f"Run: manage.py levada rebuild {alias}"
    if position.epoch != epoch:
        return Finding(
            PROBLEM, f"{alias} is at {position}, of another log than this one ({epoch}).", rebuild
        )
    log = open_log()
    try:
        lag = position.lag(log.end(CHANGES))
    except ForeignPosition as error:
        return Finding(PROBLEM, f"{alias}: {error}", rebuild)
    if position.offset < log.beginning(CHANGES).offset:
        return Finding(
            PROBLEM, f"{alias} is at {position}, where the log no longer reaches.", rebuild
        )
    if position.offset > log.end(CHANGES).offset:
        return Finding(
            PROBLEM, f"{alias} is at {position}, ahead of the log: the log lost records.", rebuild
        )
    return Finding(OK, f"{alias} can be read and is {count(lag, 'record')} behind the log.")


def _duckdb() -> Iterator[Finding]:
    aliases = [
        alias
        for alias in conf.store_aliases()
        if django_settings.DATABASES.get(alias, {}).get("ENGINE") == "levada.stores.duckdb"
    ]
    if aliases:
        import duckdb

        yield Finding(OK, f"DuckDB {duckdb.__version__} keeps {', '.join(aliases)}.")


def _disk() -> Iterator[Finding]:
    for what, path in _files():
        folder = path.parent if path.parent.is_dir() else Path.cwd()
        free_bytes = shutil.disk_usage(folder).free
        wanted_bytes = max(LEAST_FREE_BYTES, size_bytes(str(path)))
        if free_bytes < wanted_bytes:
            yield Finding(
                NOTE,
                f"{size(free_bytes)} are free where {what} lies ({folder}); a rebuild builds a "
                f"second copy and may need {size(wanted_bytes)}.",
                f"Free space, or move it: du -sh {folder}",
            )
        else:
            yield Finding(OK, f"{size(free_bytes)} are free where {what} lies.")


def _files() -> Iterator[tuple[str, Path]]:
    if lock_path("relay"):
        yield "the log", conf.log_path()
    for alias in conf.store_aliases():
        name = str(django_settings.DATABASES.get(alias, {}).get("NAME") or "")
        if name and name != ":memory:":
            yield alias, Path(name)


def _keepers() -> Iterator[Finding]:
    idle, kept = [], 0
    for spec in part_specs():
        path = lock_path(spec.name)
        found = holder(path) if path else None
        if found:
            kept += 1
            yield Finding(OK, f"Process {found.pid} keeps {spec.name}.")
        elif path:
            idle.append(spec.name)
    if idle:
        yield Finding(
            NOTE,
            f"Nobody keeps {', '.join(idle)}.",
            f"{RUN} --only {','.join(idle)}" if kept else RUN,
        )


def _dead_letters() -> Iterator[Finding]:
    from ..outbox.models import DeadLetter

    waiting = DeadLetter.objects.using(settings.SOURCE).filter(state=DeadLetter.State.WAITING)
    number = waiting.count()
    if number:
        yield Finding(
            PROBLEM,
            f"{count(number, 'dead letter')} wait for a decision: what they carry is in no store.",
            "See: manage.py levada dead-letters, and decide: dead-letters retry ID, drop ID",
        )
    else:
        yield Finding(OK, "No dead letters.")


def _verified() -> Iterator[Finding]:
    from .verified import last_verified

    for alias in conf.store_aliases():
        found = last_verified(alias)
        if found.at is None or not found.complete:
            yield Finding(
                NOTE, f"{alias} is {found.words}.", f"Run: manage.py levada verify {alias}"
            )
        elif not found.equal:
            yield Finding(
                PROBLEM,
                f"{alias} differed from its source in {count(found.differences, 'row')} when it "
                f"was last verified.",
                f"Run: manage.py levada rebuild {alias}, then verify it again",
            )
        else:
            age_s = (datetime.now(UTC) - found.at).total_seconds()
            yield Finding(OK, f"{alias} was equal to its source {seconds(age_s)} ago.")


EXAMINATIONS: tuple[Examination, ...] = (
    _settings,
    _migrations,
    _triggers,
    _source_database,
    _clock,
    _outbox,
    _log,
    _retention,
    _stores,
    _duckdb,
    _disk,
    _keepers,
    _dead_letters,
    _verified,
)
