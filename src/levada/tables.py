"""
The shape of a replicated table: its columns, their kinds, and how an image writes them.

The triggers, the snapshot and the stores all read one `TableSpec`; `migrate`
also writes it into the source database, so that a keeper that still runs
yesterday's code knows today's table. Kinds and their form in a JSON image:

    integer     number                                   7
    boolean     true or false
    float       number of 17 digits or more;             0.10000000000000001
                text for what JSON lacks                 "NaN" "Infinity" "-Infinity"
    decimal     number, every digit kept                 12.50
    text        string
    date        ISO-8601                                 "2026-11-21"
    time        ISO-8601                                 "08:30:00.000001"
    timestamp   ISO-8601 in UTC, offset or none          "2026-11-21T08:30:00.123456+00:00"
    duration    whole microseconds, a number             5400000000
    uuid        hyphenated, lower case                   "9f1c…-…"
    binary      backslash, x, lower-case hex             "\\x6869"
    json        a *string* that holds the JSON text, so SQL NULL and JSON null differ
                                                         "{\\"a\\": 1}"

SQL NULL is null in every kind.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, cast

from django.db import models

from .errors import UnsupportedModel

KINDS: dict[str, str] = {
    "AutoField": "integer",
    "BigAutoField": "integer",
    "SmallAutoField": "integer",
    "BigIntegerField": "integer",
    "IntegerField": "integer",
    "SmallIntegerField": "integer",
    "PositiveBigIntegerField": "integer",
    "PositiveIntegerField": "integer",
    "PositiveSmallIntegerField": "integer",
    "BooleanField": "boolean",
    "FloatField": "float",
    "DecimalField": "decimal",
    "CharField": "text",
    "TextField": "text",
    "SlugField": "text",
    "FileField": "text",
    "FilePathField": "text",
    "GenericIPAddressField": "text",
    "IPAddressField": "text",
    "DateField": "date",
    "TimeField": "time",
    "DateTimeField": "timestamp",
    "DurationField": "duration",
    "UUIDField": "uuid",
    "BinaryField": "binary",
    "JSONField": "json",
}
"""Django's internal field type to the kind of its column."""


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """
    One column.

    name: in the database. kind: see the module. internal_type: Django's, of
    the foreign key's target where there is one; stores take their column type
    from it. max_length, max_digits, decimal_places: as the field has them.
    """

    name: str
    kind: str
    internal_type: str
    null: bool = False
    max_length: int | None = None
    max_digits: int | None = None
    decimal_places: int | None = None


@dataclass(frozen=True, slots=True)
class TableSpec:
    """
    One replicated table: `label` (app_label.Model), `table`, `key` and `columns`.

    key: the primary key's column names, in order. columns: in the model's
    order, excluded ones left out; the key is never excluded.
    """

    label: str
    table: str
    key: tuple[str, ...]
    columns: tuple[ColumnSpec, ...]
    excluded: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change whenever the table's replicated shape does."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_json(self) -> str:
        """Write the spec in one canonical form; `from_json` reads it."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> TableSpec:
        """Read what `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        return cls(
            label=fields["label"],
            table=fields["table"],
            key=tuple(fields["key"]),
            columns=tuple(ColumnSpec(**column) for column in fields["columns"]),
            excluded=tuple(fields["excluded"]),
        )

    def column(self, name: str) -> ColumnSpec:
        """Return the column called `name`. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


def table_spec(model: type[models.Model], exclude: tuple[str, ...] = ()) -> TableSpec:
    """
    Read the spec of `model`'s own table, without the fields named in `exclude`.

    Raises UnsupportedModel, naming model and field, for a model without a
    table of its own, an excluded primary key or name that is no field, and a
    field whose column Levada cannot carry exactly.
    """
    options = model._meta
    if options.proxy or options.abstract:
        raise UnsupportedModel(
            f"{options.label} has no table of its own. "
            f"Name the model it is a proxy of in LEVADA['REPLICATE']."
        )
    key = tuple(field.column for field in _key_fields(model))
    names = {field.name for field in options.local_concrete_fields}
    unknown = sorted(set(exclude) - names)
    if unknown:
        raise UnsupportedModel(
            f"{options.label} has no field {unknown[0]!r} to exclude. "
            f"Its fields are: {', '.join(sorted(names))}."
        )
    columns, excluded = [], []
    for field in options.local_concrete_fields:
        if field.column is None:  # CompositePrimaryKey has no column
            continue
        if field.name in exclude:
            if field.column in key:
                raise UnsupportedModel(
                    f"{options.label}.{field.name} is in the primary key and cannot be excluded. "
                    f"Remove it from 'exclude' in LEVADA['REPLICATE']."
                )
            excluded.append(field.column)
            continue
        columns.append(column_spec(model, field))
    return TableSpec(options.label, options.db_table, key, tuple(columns), tuple(excluded))


def _key_fields(model: type[models.Model]) -> list[Any]:
    pk_fields = getattr(model._meta, "pk_fields", None)  # CompositePrimaryKey since Django 5.2
    return list(pk_fields) if pk_fields else [model._meta.pk]


def concrete_model(model: type[models.Model]) -> type[models.Model]:
    """Return the model that has the table: of a proxy the one behind it, else `model`."""
    return cast(type[models.Model], model._meta.concrete_model)


def column_spec(model: type[models.Model], field: Any) -> ColumnSpec:
    """Read one field's column. Raises UnsupportedModel for a type with no kind."""
    concrete = _stored_as(field)
    internal_type = concrete.get_internal_type()
    kind = KINDS.get(internal_type)
    if kind is None or _has_own_column_type(concrete):
        raise UnsupportedModel(
            f"{model._meta.label}.{field.name} is a {type(concrete).__name__}, whose column Levada "
            f"cannot carry exactly. Exclude it: LEVADA['REPLICATE'] = "
            f"{{…: {{{model._meta.label!r}: {{'exclude': [{field.name!r}]}}}}}}"
        )
    return ColumnSpec(
        name=field.column,
        kind=kind,
        internal_type=internal_type,
        null=bool(field.null),
        max_length=getattr(concrete, "max_length", None),
        max_digits=getattr(concrete, "max_digits", None),
        decimal_places=getattr(concrete, "decimal_places", None),
    )


def _stored_as(field: Any) -> Any:
    """Follow foreign keys and generated fields to the field that decides the column's type."""
    while True:
        if isinstance(field, models.GeneratedField):
            field = field.output_field
        elif isinstance(field, models.ForeignKey):
            field = field.target_field
        else:
            return field


def _has_own_column_type(field: Any) -> bool:
    """Say whether a class outside Django's fields decides the column type, unseen by us."""
    for name in ("db_type", "db_type_parameters"):
        owner = next(each for each in type(field).__mro__ if name in vars(each))
        if not owner.__module__.startswith("django.db.models.fields"):
            return True
    return False
