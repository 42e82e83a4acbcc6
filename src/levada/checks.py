"""
System checks: every misconfiguration gets a name before production meets it.

    E001  LEVADA is not a dict                       E010  the source's vendor has no triggers
    E002  unknown setting                            E011  the source lives in memory
    E003  a setting's value cannot work              E012  a store's engine is not a store
    E004  REPLICATE is not written as it should      E013  two stores share one file
    E005  unknown model                              E014  the log has no place to lie
    E006  model or field that cannot be captured     E015  unknown log engine or option
    E007  a store is not in DATABASES                E016  a replicated "table" is a view
    E008  a store is its own source
    E009  SOURCE is not in DATABASES

    W001  an SQLite source is not in WAL mode        W003  a model is routed to another database
    W002  its transactions may fail with "locked"    W004  a store lives in memory

Those that open a connection (E016, W001) carry Django's tag `database` and
run in `migrate` and in `check --database default`; the others in every `check`.

Django's own check of models asks each database whether it can make the model's
table. The tables of replicas are the applier's, which makes no constraints and
no indexes, so here a store is not asked about the models it replicates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core import mail
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.checks.model_checks import check_all_models
from django.core.checks.registry import registry
from django.db import connections, models, router

from . import conf
from .conf import SETTINGS, Setting, settings
from .errors import ConfigurationError, UnknownModel, UnsupportedModel

SOURCE_VENDORS = ("sqlite", "postgresql")
STORE_ENGINES = ("levada.stores.duckdb",)
EMBEDDED = "levada.log.embedded"
LOG_OPTIONS = ("ENGINE", "NAME")
DOCS = "See docs/settings.md."


@register(Tags.models)
def check_models(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> Sequence[CheckMessage]:
    """Run Django's check of models in place of Django; replicas are left out of it."""
    with _replicas_not_migrated():
        messages: Sequence[CheckMessage] = check_all_models(app_configs, **kwargs)
        return messages


registry.registered_checks.discard(check_all_models)


@contextmanager
def _replicas_not_migrated() -> Iterator[None]:
    """Have `allow_migrate` say no to replicated models in their stores, before other routers."""
    first = _Replicas()
    router.routers.insert(0, first)
    try:
        yield
    finally:
        router.routers.remove(first)


class _Replicas:
    """A database router that knows which tables `migrate` does not make."""

    def __init__(self) -> None:
        try:
            self.pairs = {
                (alias, each.model._meta.app_label, each.model._meta.model_name)
                for each in conf.replicated().values()
                for alias in each.stores
            }
        except ConfigurationError:  # `check_settings` says so
            self.pairs = set()

    def allow_migrate(
        self, db: str, app_label: str, model_name: str | None = None, **hints: Any
    ) -> bool | None:
        return False if (db, app_label, model_name) in self.pairs else None


@register("levada")
def check_settings(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check LEVADA itself, then what it names, as far as the part before it is sound."""
    messages = list(_shape())
    if messages:
        return messages
    messages += _values()
    messages += _source()
    messages += _log()
    if isinstance(settings.REPLICATE, dict):
        messages += _stores()
        messages += _models()
    return messages


@register("levada", Tags.database)
def check_source(
    app_configs: Sequence[AppConfig] | None = None,
    databases: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[CheckMessage]:
    """Check what only an open connection to the source can tell."""
    if list(_shape()) or settings.SOURCE not in (databases or ()):
        return []
    return [*_wal_mode(settings.SOURCE), *_views(settings.SOURCE)]


# LEVADA itself


def _shape() -> Iterator[CheckMessage]:
    try:
        configured = conf.user_settings()
    except ConfigurationError as error:
        yield _from(error, "levada.E001")
        return
    for name in configured:
        if name not in SETTINGS:
            yield _unknown_setting(name)


def _unknown_setting(name: Any) -> CheckMessage:
    close = get_close_matches(str(name).upper(), SETTINGS, n=1)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return Error(
        f"LEVADA has no setting {name!r}.",
        hint=f"{meant}The settings are: {', '.join(SETTINGS)}. {DOCS}",
        id="levada.E002",
    )


def _values() -> Iterator[CheckMessage]:
    configured = conf.user_settings()
    for name, setting in SETTINGS.items():
        wrong = name in configured and complaint(setting, configured[name])
        if wrong:
            code = "levada.E004" if name == "REPLICATE" else "levada.E003"
            yield Error(
                f"LEVADA[{name!r}] is {configured[name]!r}, but must be {wrong}.",
                hint=f"{setting.help} The default is {setting.default!r}. {DOCS}",
                id=code,
            )


def complaint(setting: Setting, value: Any) -> str:
    """Say what `value` must be for `setting`, '' where it is that; units decide."""
    if " | " in setting.unit:
        choices = setting.unit.split(" | ")
        return "" if value in choices else " or ".join(map(repr, choices))
    wanted, fits = _UNITS.get(setting.unit, _UNITS[""])
    return "" if fits(value) else wanted


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_UNITS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "": ("a dict", lambda value: isinstance(value, dict)),
    "alias": ("the name of a database", lambda value: isinstance(value, str) and bool(value)),
    "s": ("a number of seconds above 0", lambda value: _is_number(value) and value > 0),
    "records": ("a whole number of records, at least 1", _is_count),
    "tries": ("a whole number of tries, at least 1", _is_count),
    "port": (
        "a port from 1 to 65535, or None",
        lambda value: value is None or (_is_count(value) and value <= 65535),
    ),
}


# The source


def _source() -> Iterator[CheckMessage]:
    alias = settings.SOURCE
    if alias not in django_settings.DATABASES:
        yield Error(
            f"LEVADA['SOURCE'] is {alias!r}, which is not in DATABASES.",
            hint=f"Name one of: {', '.join(django_settings.DATABASES)}.",
            id="levada.E009",
        )
        return
    vendor = connections[alias].vendor
    if vendor not in SOURCE_VENDORS:
        yield Error(
            f"Levada has no triggers for {vendor}, the vendor of its source {alias!r}.",
            hint=f"Set LEVADA['SOURCE'] to a database of: {', '.join(SOURCE_VENDORS)}.",
            id="levada.E010",
        )
    elif vendor == "sqlite":
        yield from _sqlite_source(alias)


def _sqlite_source(alias: str) -> Iterator[CheckMessage]:
    configured = django_settings.DATABASES[alias]
    if str(configured.get("NAME")) == ":memory:":
        yield Error(
            f"The source {alias!r} lives in memory, where no relay can read it.",
            hint=f"Give DATABASES[{alias!r}] a file: 'NAME': BASE_DIR / 'db.sqlite3'.",
            id="levada.E011",
        )
    mode = (configured.get("OPTIONS") or {}).get("transaction_mode") or "DEFERRED"
    if mode.upper() == "DEFERRED":
        yield Warning(
            f"Transactions of {alias!r} begin DEFERRED: one that reads and then writes fails "
            f'with "database is locked" when the relay prunes the outbox in between.',
            hint=f"Set DATABASES[{alias!r}]['OPTIONS']['transaction_mode'] = 'IMMEDIATE'.",
            id="levada.W002",
        )


def _wal_mode(alias: str) -> Iterator[CheckMessage]:
    connection = connections[alias]
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
    if mode not in ("wal", "memory"):  # a test runner's database in memory has no other mode
        yield Warning(
            f"The SQLite source {alias!r} has journal_mode {mode}, so the relay and the "
            f"project's writers block each other.",
            hint=f"Set DATABASES[{alias!r}]['OPTIONS']['init_command'] = "
            f"'PRAGMA journal_mode=WAL'.",
            id="levada.W001",
        )


def _views(alias: str) -> Iterator[CheckMessage]:
    try:
        named = conf.replicated()
    except ConfigurationError:
        return  # check_settings says which
    connection = connections[alias]
    with connection.cursor() as cursor:
        tables = connection.introspection.get_table_list(cursor)
    views = {table.name for table in tables if table.type == "v"}
    for label, each in named.items():
        if each.model._meta.db_table in views:
            yield Error(
                f"{label} is read from {each.model._meta.db_table!r}, a view, whose changes "
                f"no trigger sees.",
                hint="Name the models of the tables below the view in LEVADA['REPLICATE'].",
                obj=each.model,
                id="levada.E016",
            )


# The log


def _log() -> Iterator[CheckMessage]:
    configured = settings.LOG
    if not isinstance(configured, dict):
        return  # E003
    for option in configured:
        if option not in LOG_OPTIONS:
            yield Error(
                f"LEVADA['LOG'] has no option {option!r}.",
                hint=f"Its options are: {', '.join(LOG_OPTIONS)}. {DOCS}",
                id="levada.E015",
            )
    engine = configured.get("ENGINE", EMBEDDED)
    if engine != EMBEDDED and not _is_importable(engine):
        yield Error(
            f"LEVADA['LOG']['ENGINE'] is {engine!r}, which is no module.",
            hint=f"Write {EMBEDDED!r}, 'levada.log.memory' or a module of yours. {DOCS}",
            id="levada.E015",
        )
    elif engine == EMBEDDED and isinstance(settings.REPLICATE, dict) and settings.REPLICATE:
        yield from _log_place()


def _is_importable(module: Any) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, AttributeError, ValueError):
        return False


def _testing() -> bool:
    """
    Say whether a test runner is at work, which puts stores into memory and then checks.

    A TestCase needs no log on disk; who opens one without a place is told so then.
    """
    return hasattr(mail, "outbox")


def _log_place() -> Iterator[CheckMessage]:
    try:
        path = conf.log_path()
    except ConfigurationError as error:
        if not _testing():
            yield _from(error, "levada.E014")
        return
    problem = _unwritable(path)
    if problem:
        yield Error(
            f"The log cannot be written at {path}: {problem}.",
            hint="Make the folder, or set LEVADA['LOG']['NAME'] to a file in a folder that "
            "this user may write to.",
            id="levada.E014",
        )


def _unwritable(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"{folder} is no folder"
    if path.is_dir():
        return "it is a folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"no right to write in {folder}"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return "no right to write to the file"
    return ""


# The stores


def _stores() -> Iterator[CheckMessage]:
    taken: dict[Path, str] = {}
    for alias in conf.store_aliases():
        yield from _store(alias)
        name = django_settings.DATABASES.get(alias, {}).get("NAME")
        if not name or str(name) == ":memory:":
            continue
        path = Path(name).absolute()
        if path in taken:
            yield Error(
                f"The stores {taken[path]!r} and {alias!r} share the file {path}.",
                hint=f"Give DATABASES[{alias!r}] a 'NAME' of its own.",
                id="levada.E013",
            )
        taken.setdefault(path, alias)


def _store(alias: str) -> Iterator[CheckMessage]:
    configured = django_settings.DATABASES.get(alias)
    if configured is None:
        close = get_close_matches(alias, django_settings.DATABASES, n=1)
        meant = f"Did you mean {close[0]!r}? Or add: " if close else "Add: "
        yield Error(
            f"LEVADA['REPLICATE'] fills {alias!r}, which is not in DATABASES.",
            hint=f"{meant}DATABASES[{alias!r}] = {{'ENGINE': 'levada.stores.duckdb', "
            f"'NAME': BASE_DIR / '{alias}.duckdb'}}",
            id="levada.E007",
        )
    elif alias == settings.SOURCE:
        yield Error(
            f"LEVADA['REPLICATE'] fills {alias!r}, which is the source itself.",
            hint="A store is another database than LEVADA['SOURCE']: add one to DATABASES.",
            id="levada.E008",
        )
    elif configured.get("ENGINE") not in STORE_ENGINES:
        yield Error(
            f"DATABASES[{alias!r}] has the engine {configured.get('ENGINE')!r}, which Levada "
            f"cannot fill.",
            hint=f"Use one of: {', '.join(STORE_ENGINES)}.",
            id="levada.E012",
        )
    elif str(configured.get("NAME")) == ":memory:" and not _testing():
        yield Warning(
            f"The store {alias!r} lives in memory: no other process sees it, and each start "
            f"begins with a rebuild.",
            hint=f"Give DATABASES[{alias!r}] a file: 'NAME': BASE_DIR / '{alias}.duckdb'.",
            id="levada.W004",
        )


# The models


def _models() -> Iterator[CheckMessage]:
    seen: set[str] = set()
    for alias in conf.store_aliases():
        try:
            entries = conf.entries_of(alias, settings.REPLICATE[alias])
        except ConfigurationError as error:
            yield _from(error, "levada.E004")
            continue
        for label, options in entries.items():
            yield from _entry(alias, label, options, seen)


def _entry(
    alias: str, label: str, options: dict[str, Any], seen: set[str]
) -> Iterator[CheckMessage]:
    exclude = options.get("exclude", ())
    if not isinstance(exclude, (list, tuple, set)) or not all(isinstance(e, str) for e in exclude):
        yield Error(
            f"LEVADA['REPLICATE'][{alias!r}][{label!r}]['exclude'] is {exclude!r}, but must be "
            f"a list of field names.",
            hint=f"Write: {{'exclude': [{exclude!r}]}}"
            if isinstance(exclude, str)
            else "Write: {'exclude': ['field']}",
            id="levada.E004",
        )
        return
    try:
        model = conf.model_named(alias, label)
    except UnknownModel as error:
        yield _unknown_model(error, label)
        return
    owned = list(conf.owners_of(model, tuple(exclude)))
    for each in conf.with_relatives(model, tuple(exclude)):
        # A parent or through table may be named by itself as well: one message is enough.
        own = tuple(name for owner, name in owned if owner == each._meta.label)
        if own or each._meta.label not in seen:
            seen.add(each._meta.label)
            yield from _model(each, own)


def _unknown_model(error: UnknownModel, label: str) -> CheckMessage:
    from django.apps import apps

    message = _from(error, "levada.E005")
    labels = [model._meta.label for model in apps.get_models(include_auto_created=True)]
    close = get_close_matches(str(label), labels, n=1)
    if close:
        message.hint = f"Did you mean {close[0]!r}? {message.hint}"
    return message


def _model(model: type[models.Model], exclude: tuple[str, ...]) -> Iterator[CheckMessage]:
    try:
        conf.Replicated(model, tuple(sorted(exclude)), ()).spec  # noqa: B018 (raises)
    except UnsupportedModel as error:
        yield _from(error, "levada.E006", model)
        return
    database = router.db_for_write(model)
    if database != settings.SOURCE:
        yield Warning(
            f"DATABASE_ROUTERS send writes of {model._meta.label} to {database!r}, but Levada "
            f"captures {settings.SOURCE!r}.",
            hint=f"Set LEVADA['SOURCE'] = {database!r}, or take the model out of "
            f"LEVADA['REPLICATE'].",
            obj=model,
            id="levada.W003",
        )


def _from(error: Exception, code: str, obj: Any = None) -> CheckMessage:
    """Split a three-part message into what happened and what to type."""
    what, _, hint = str(error).partition(". ")
    return Error(f"{what.rstrip('.')}.", hint=hint or DOCS, obj=obj, id=code)
