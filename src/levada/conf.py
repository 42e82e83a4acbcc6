"""
The settings, one table: name, default, unit and help; code, docs and checks all read it.

    from levada.conf import settings
    settings.BATCH_ROWS

reads `LEVADA["BATCH_ROWS"]` of Django's settings at each access, so
`override_settings(LEVADA=…)` works in tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from django.apps import apps
from django.conf import settings as django_settings
from django.db import models

from .errors import ConfigurationError, UnknownModel
from .tables import TableSpec, concrete_model, table_spec


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of `LEVADA`: its default, the unit of its value ('' for none), one line of help."""

    name: str
    default: Any
    unit: str
    help: str


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting(
            "REPLICATE",
            {},
            "",
            "Which models go to which store: {alias: ['app.Model', …]} or "
            "{alias: {'app.Model': {'exclude': ['field', …]}}}.",
        ),
        Setting("SOURCE", "default", "alias", "The database whose commits are captured."),
        Setting(
            "LOG",
            {},
            "",
            "The ordered log: {'ENGINE': 'levada.log.embedded', 'NAME': path}. "
            "Without NAME the embedded log is a file beside the first store's.",
        ),
        Setting(
            "LOG_RETENTION_S",
            7 * 24 * 3600,
            "s",
            "How long the log keeps a record that every consumer group has read.",
        ),
        Setting("BATCH_ROWS", 20_000, "records", "The most records relayed or applied at once."),
        Setting(
            "POLL_S",
            0.01,
            "s",
            "How often an idle relay or applier looks for news that nothing announced.",
        ),
        Setting("RETRIES", 5, "tries", "How often a failing record is tried before it is poison."),
        Setting(
            "ON_POISON",
            "dead_letter",
            "dead_letter | halt",
            "What an applier does with a record its store cannot take.",
        ),
        Setting(
            "ON_DRIFT",
            "rebuild",
            "rebuild | halt",
            "What an applier does when the source's table has changed its shape.",
        ),
        Setting(
            "READ_YOUR_WRITES_TIMEOUT_S",
            1.0,
            "s",
            "How long a request waits for a store to show what its session has written.",
        ),
        Setting(
            "ON_STALE_READ",
            "serve",
            "serve | raise",
            "What the middleware does when that time is over: serve what is there, with the "
            "header Levada-Stale, or raise levada.errors.Timeout.",
        ),
        Setting(
            "STOP_S",
            10.0,
            "s",
            "How long a keeper that was told to stop waits for the batches it is in.",
        ),
        Setting(
            "HEALTH_PORT",
            None,
            "port",
            "Where the keeper answers /healthz and /metrics on 127.0.0.1; None for nowhere.",
        ),
    )
}


class Settings:
    """Attribute access to `LEVADA`, with the defaults of `SETTINGS`. Raises ConfigurationError."""

    def __getattr__(self, name: str) -> Any:
        if name not in SETTINGS:
            raise AttributeError(name)
        return user_settings().get(name, SETTINGS[name].default)


settings = Settings()


def user_settings() -> dict[str, Any]:
    """Return the project's `LEVADA` dict, {} where there is none. Raises ConfigurationError."""
    configured = getattr(django_settings, "LEVADA", {})
    if not isinstance(configured, dict):
        raise ConfigurationError(
            f"LEVADA is a {type(configured).__name__}, not a dict. "
            f"Write: LEVADA = {{'REPLICATE': {{'analytics': ['app.Model']}}}}"
        )
    return configured


@dataclass(frozen=True, slots=True)
class Replicated:
    """One model to replicate: the fields left out and the stores (aliases) it goes to."""

    model: type[models.Model]
    exclude: tuple[str, ...]
    stores: tuple[str, ...]

    @property
    def spec(self) -> TableSpec:
        """The table's spec. Raises UnsupportedModel."""
        return table_spec(self.model, self.exclude)


def replicated() -> dict[str, Replicated]:
    """
    Return what REPLICATE names, by label, with what belongs to it.

    Auto-created many-to-many tables of a named model and the concrete parents
    of multi-table inheritance join by themselves. A field excluded for one
    store is excluded for all: it never leaves its table. An excluded field
    that the model inherits is left out of the parent's table, an excluded
    many-to-many field leaves out its through table.
    Raises UnknownModel and ConfigurationError.
    """
    stores: dict[str, set[str]] = {}
    excludes: dict[str, set[str]] = {}
    found: dict[str, type[models.Model]] = {}
    for alias, entries in _replicate_setting().items():
        for label, options in entries_of(alias, entries).items():
            model = model_named(alias, label)
            exclude = tuple(options.get("exclude", ()))
            for each in with_relatives(model, exclude):
                key = each._meta.label
                found[key] = each
                stores.setdefault(key, set()).add(alias)
                excludes.setdefault(key, set())
            for label_of_owner, name in owners_of(model, exclude):
                excludes[label_of_owner].add(name)
    return {
        label: Replicated(
            found[label], tuple(sorted(excludes[label])), tuple(sorted(stores[label]))
        )
        for label in sorted(found)
    }


def replicated_in(alias: str) -> dict[str, Replicated]:
    """Return the part of `replicated()` that goes to the store `alias`."""
    return {label: each for label, each in replicated().items() if alias in each.stores}


def store_aliases() -> tuple[str, ...]:
    """Return the aliases REPLICATE fills, in the order it names them."""
    return tuple(_replicate_setting())


def log_path() -> Path:
    """
    Return where the embedded log's file lies.

    LOG['NAME'], or `levada-log.sqlite3` beside the first store's file.
    Raises ConfigurationError where neither is known.
    """
    name = settings.LOG.get("NAME")
    if name:
        return Path(name)
    for alias in store_aliases():
        store = django_settings.DATABASES.get(alias, {}).get("NAME")
        if store and str(store) != ":memory:":
            return Path(store).parent / "levada-log.sqlite3"
    raise ConfigurationError(
        "The embedded log has no place to lie: no store in LEVADA['REPLICATE'] is a file. "
        "Write: LEVADA['LOG'] = {'NAME': BASE_DIR / 'levada-log.sqlite3'}"
    )


def _replicate_setting() -> dict[str, Any]:
    configured = settings.REPLICATE
    if not isinstance(configured, dict):
        raise ConfigurationError(
            f"LEVADA['REPLICATE'] is a {type(configured).__name__}, not a dict. "
            f"Write: {{'analytics': ['app.Model']}}"
        )
    return configured


def entries_of(alias: str, entries: Any) -> dict[str, dict[str, Any]]:
    """Return one store's part of REPLICATE as {label: options}. Raises ConfigurationError."""
    if isinstance(entries, dict):
        normal = {label: options or {} for label, options in entries.items()}
    elif isinstance(entries, (list, tuple)) and all(isinstance(each, str) for each in entries):
        normal = {label: {} for label in entries}
    else:
        raise ConfigurationError(
            f"LEVADA['REPLICATE'][{alias!r}] must list models. "
            f"Write: ['app.Model'] or {{'app.Model': {{'exclude': ['field']}}}}"
        )
    for label, options in normal.items():
        unknown = sorted(set(options) - {"exclude"})
        if unknown:
            raise ConfigurationError(
                f"LEVADA['REPLICATE'][{alias!r}][{label!r}] has no option {unknown[0]!r}. "
                f"The only option is 'exclude', a list of field names."
            )
    return normal


def model_named(alias: str, label: str) -> type[models.Model]:
    """Return the model REPLICATE[alias] calls `label`. Raises UnknownModel."""
    try:
        return apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise UnknownModel(
            f"LEVADA['REPLICATE'][{alias!r}] names {label!r}, which is no installed model. "
            f"Models are named app_label.Model, and their app must be in INSTALLED_APPS."
        ) from error


def owners_of(model: type[models.Model], exclude: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each excluded column's field with the label of the model whose table has it."""
    concrete = concrete_model(model)
    family = [concrete, *concrete._meta.get_parent_list()]
    for name in exclude:
        owner = next(
            (m for m in family if name in {f.name for f in m._meta.local_concrete_fields}), None
        )
        if owner is not None:
            yield owner._meta.label, name
        elif not any(name == f.name for m in family for f in m._meta.local_many_to_many):
            yield concrete._meta.label, name  # no field at all: table_spec() names the mistake


def with_relatives(
    model: type[models.Model], exclude: tuple[str, ...] = ()
) -> list[type[models.Model]]:
    """Return `model`, its concrete parents, and the automatic through tables of them all."""
    model = concrete_model(model)
    family = [model, *model._meta.get_parent_list()]
    through: list[type[models.Model]] = [
        field.remote_field.through
        for member in family
        for field in cast(Any, member._meta.local_many_to_many)
        if field.remote_field.through._meta.auto_created and field.name not in exclude
    ]
    return [*family, *through]


def as_markdown() -> str:
    """Write `SETTINGS` as the table of docs/settings.md, one row a setting."""
    rows = ["| Setting | Default | Unit | What it says |", "|---|---|---|---|"]
    for setting in SETTINGS.values():
        unit = setting.unit.replace("|", "\\|")
        rows.append(f"| `{setting.name}` | `{setting.default!r}` | {unit} | {setting.help} |")
    return "\n".join(rows) + "\n"
