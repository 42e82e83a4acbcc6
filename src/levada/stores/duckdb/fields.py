"""
Columns that hold lists, structs and maps.

    class Trip(models.Model):
        stops = ListField(models.CharField(max_length=40))
        fare = StructField({"net": DecimalField(…), "currency": CharField(max_length=3)})
        tags = MapField(CharField(max_length=20), CharField(max_length=80))

        class Meta:
            required_db_vendor = "duckdb"

In Python they are list and dict. They have no form field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.core import checks
from django.core.exceptions import FieldError, ValidationError
from django.db import NotSupportedError, connections, router
from django.db.models import Field, IntegerField, Lookup, Transform, Value
from django.db.models.fields.mixins import CheckFieldDefaultMixin
from django.db.models.lookups import Exact, In

__all__ = ["ListField", "MapField", "StructField"]

Converter = Callable[[Any], Any]


class _NestedField(CheckFieldDefaultMixin, Field):
    """A field made of other fields."""

    empty_strings_allowed = False

    def parts(self) -> dict[str, Field[Any, Any]]:
        """Return the fields it is made of, by what each is called in messages."""
        raise NotImplementedError

    def db_type(self, connection: Any) -> str:
        """Return DuckDB's type. Raises NotSupportedError for another database."""
        if connection.vendor != "duckdb":
            raise NotSupportedError(
                f"{self} is a {type(self).__name__}, which needs DuckDB; the database "
                f"{connection.alias!r} is {connection.vendor}. "
                f"Write in the model's Meta: required_db_vendor = 'duckdb'"
            )
        return self._type_sql([_type_of(each, connection) for each in self.parts().values()])

    def _type_sql(self, types: list[str]) -> str:
        raise NotImplementedError

    cast_db_type = db_type

    def formfield(self, **kwargs: Any) -> None:
        """Return None: a form cannot sensibly edit it, so ModelForm leaves it out."""
        return

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Check the parts as well, and that the model is kept off other databases."""
        found = super().check(**kwargs)
        for name, part in self.parts().items():
            if part.remote_field:
                found.append(
                    checks.Error(f"{name} cannot be a relation.", obj=self, id="levada.E061")
                )
                continue
            for each in part.check(**{**kwargs, "databases": None}):
                # A part has no name of its own, which is all that E001 to E003 look at.
                if each.id not in ("fields.E001", "fields.E002", "fields.E003"):
                    found.append(
                        type(each)(f"{name}: {each.msg}", hint=each.hint, obj=self, id=each.id)  # type: ignore[arg-type, call-arg]
                    )
        return [*found, *self._check_vendor(kwargs.get("databases") or ())]

    def _check_vendor(self, databases: Sequence[str]) -> list[checks.CheckMessage]:
        model = getattr(self, "model", None)
        if model is None or not model._meta.managed:
            return []
        return [
            checks.Error(
                f"{type(self).__name__} needs DuckDB, and the database {alias!r} is "
                f"{connections[alias].vendor}.",
                hint="Write in the model's Meta: required_db_vendor = 'duckdb'",
                obj=self,
                id="levada.E062",
            )
            for alias in databases
            if model._meta.can_migrate(connections[alias])
            and connections[alias].vendor != "duckdb"
            and router.allow_migrate_model(alias, model)
        ]

    def get_db_converters(self, connection: Any) -> list[Any]:
        """Return the converter of a whole value, [] where DuckDB's is what Python wants."""
        convert = self._converter([element_converter(f, connection) for f in self.parts().values()])
        if convert is None:
            return []
        return [lambda value, expression, connection: value if value is None else convert(value)]

    def _converter(self, parts: list[Converter | None]) -> Converter | None:
        """Return what converts a value that is not None, given what converts its parts."""
        raise NotImplementedError

    def to_python(self, value: Any) -> Any:
        """Read JSON, as a fixture has it; anything else stays."""
        return self.from_plain(json.loads(value)) if isinstance(value, str) else value

    def value_to_string(self, obj: Any) -> str:
        """Write JSON, for a fixture."""
        return json.dumps(self.to_plain(self.value_from_object(obj)), ensure_ascii=False)

    def from_plain(self, value: Any) -> Any:
        """Make a value of what JSON can say."""
        raise NotImplementedError

    def to_plain(self, value: Any) -> Any:
        """Make of a value what JSON can say."""
        raise NotImplementedError


def _type_of(field: Field[Any, Any], connection: Any) -> str:
    kind = field.cast_db_type(connection)
    if kind is None:
        raise FieldError(f"{field} has no column type in DuckDB.")
    return kind


def element_converter(field: Field[Any, Any], connection: Any) -> Converter | None:
    """Return what makes Django's value of DuckDB's, None where they are the same."""
    expression = Value(None, output_field=field)
    converters = [
        *connection.ops.get_db_converters(expression),
        *field.get_db_converters(connection),
    ]
    if not converters:
        return None

    def convert(value: Any) -> Any:
        for each in converters:
            value = each(value, expression, connection)
        return value

    return convert


def _validate_part(field: Field[Any, Any], value: Any, model_instance: Any) -> None:
    """Validate one value; empty ones and NULL always have a place inside of another."""
    if value not in field.empty_values:
        field.clean(value, model_instance)


def _part_to_plain(field: Field[Any, Any], value: Any) -> Any:
    if value is None or isinstance(field, _NestedField):
        return field.to_plain(value) if isinstance(field, _NestedField) else None
    holder = type("Holder", (), {})()
    field = field.clone()
    field.set_attributes_from_name("value")
    holder.value = value
    return field.value_to_string(holder)


def _part_from_plain(field: Field[Any, Any], value: Any) -> Any:
    if isinstance(field, _NestedField):
        return field.from_plain(value)
    return None if value is None else field.to_python(value)


class ListField(_NestedField):
    """
    A list of values of `base_field`, in a column of DuckDB's type `T[]`.

    Lookups: exact, in, contains, contained_by, overlap (with a list), `len`,
    an index from 0 (`stops__0="Funchal"`) and a slice (`stops__0_2`).
    """

    description = "List"
    _default_hint = ("list", "[]")

    def __init__(self, base_field: Field[Any, Any], **kwargs: Any) -> None:
        self.base_field = base_field
        super().__init__(**kwargs)

    def deconstruct(self) -> Any:
        """Return what a migration writes."""
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, {"base_field": self.base_field.clone(), **kwargs}

    def parts(self) -> dict[str, Field[Any, Any]]:
        return {"base_field": self.base_field}

    def _type_sql(self, types: list[str]) -> str:
        return f"{types[0]}[]"

    def _converter(self, parts: list[Converter | None]) -> Converter | None:
        (each,) = parts
        return None if each is None else lambda value: [each(item) for item in value]

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return a list of prepared values. Raises ValidationError for what is no list."""
        if value is None or hasattr(value, "as_sql"):
            return value
        return [
            self.base_field.get_db_prep_value(each, connection, prepared=False)
            for each in self._listed(value)
        ]

    def _listed(self, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValidationError(f"{self} holds lists, and was given {value!r}.")
        return value

    def get_transform(self, name: str) -> Any:
        """Return an index (`0`) or a slice (`0_2`), beside the registered ones."""
        transform = super().get_transform(name)
        if transform is not None:
            return transform
        first, underscore, last = name.partition("_")
        if not first.isdigit() or (underscore and not last.isdigit()):
            return None
        if underscore:
            return lambda lhs: ListSlice(lhs, int(first), int(last))
        return lambda lhs: ListItem(lhs, int(first))

    def validate(self, value: Any, model_instance: Any) -> None:
        """Validate each value by its own field."""
        super().validate(value, model_instance)
        for each in self._listed(value):
            _validate_part(self.base_field, each, model_instance)

    def from_plain(self, value: Any) -> Any:
        return value and [_part_from_plain(self.base_field, each) for each in value]

    def to_plain(self, value: Any) -> Any:
        return value and [_part_to_plain(self.base_field, each) for each in value]


class StructField(_NestedField):
    """
    A dict of fixed keys, each of its own type, in a column of type `STRUCT(…)`.

    A key that a dict lacks is NULL. Lookups: exact, in, and each key as a
    column of its own: `fare__net__gt=10`.
    """

    description = "Struct"
    _default_hint = ("dict", "{}")

    def __init__(self, fields: Mapping[str, Field[Any, Any]], **kwargs: Any) -> None:
        self.fields = dict(fields)
        if not self.fields or not all(isinstance(name, str) and name for name in self.fields):
            raise ValueError("A StructField wants at least one key, and text as keys.")
        if len({name.lower() for name in self.fields}) < len(self.fields):
            raise ValueError("DuckDB takes keys of a struct for equal that differ in case alone.")
        if {name.lower() for name in self.fields} == {"key", "value"}:
            raise ValueError("A struct of `key` and `value` is what DuckDB takes for a map.")
        super().__init__(**kwargs)

    def deconstruct(self) -> Any:
        """Return what a migration writes."""
        name, path, args, kwargs = super().deconstruct()
        cloned = {key: field.clone() for key, field in self.fields.items()}
        return name, path, args, {"fields": cloned, **kwargs}

    def parts(self) -> dict[str, Field[Any, Any]]:
        return self.fields

    def _type_sql(self, types: list[str]) -> str:
        named = zip(map(_quoted, self.fields), types, strict=True)
        return "STRUCT({})".format(", ".join(f"{name} {kind}" for name, kind in named))

    def _converter(self, parts: list[Converter | None]) -> Converter | None:
        named = {key: each for key, each in zip(self.fields, parts, strict=True) if each}
        if not named:
            return None
        return lambda value: {**value, **{key: each(value[key]) for key, each in named.items()}}

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return a dict of all keys. Raises ValidationError for an unknown one."""
        if value is None or hasattr(value, "as_sql"):
            return value
        self._check_keys(value)
        return {
            name: field.get_db_prep_value(value.get(name), connection, prepared=False)
            for name, field in self.fields.items()
        }

    def _check_keys(self, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise ValidationError(f"{self} holds dicts, and was given {value!r}.")
        unknown = sorted(map(str, value.keys() - self.fields.keys()))
        if unknown:
            raise ValidationError(
                f"{self} has no key {unknown[0]!r}. Its keys are: {', '.join(self.fields)}."
            )

    def get_transform(self, name: str) -> Any:
        """Return the value of a key, beside the registered transforms."""
        if name in self.fields:
            return lambda lhs: StructItem(lhs, name, self.fields[name])
        return super().get_transform(name)

    def validate(self, value: Any, model_instance: Any) -> None:
        """Validate each value by its own field."""
        super().validate(value, model_instance)
        self._check_keys(value)
        for name, each in value.items():
            _validate_part(self.fields[name], each, model_instance)

    def from_plain(self, value: Any) -> Any:
        return value and {key: _part_from_plain(self.fields[key], value[key]) for key in value}

    def to_plain(self, value: Any) -> Any:
        return value and {key: _part_to_plain(self.fields[key], value[key]) for key in value}


class MapField(_NestedField):
    """
    A dict of any keys of one type, in a column of type `MAP(K, V)`.

    Lookups: exact, in, `has_key`, `len`, `keys` and `values` (lists), and any
    other name as a key: `tags__colour="red"`.
    """

    description = "Map"
    _default_hint = ("dict", "{}")

    def __init__(
        self, key_field: Field[Any, Any], value_field: Field[Any, Any], **kwargs: Any
    ) -> None:
        self.key_field, self.value_field = key_field, value_field
        super().__init__(**kwargs)

    def deconstruct(self) -> Any:
        """Return what a migration writes."""
        name, path, args, kwargs = super().deconstruct()
        parts = {"key_field": self.key_field.clone(), "value_field": self.value_field.clone()}
        return name, path, args, {**parts, **kwargs}

    def parts(self) -> dict[str, Field[Any, Any]]:
        return {"key_field": self.key_field, "value_field": self.value_field}

    def _type_sql(self, types: list[str]) -> str:
        return f"MAP({', '.join(types)})"

    def _converter(self, parts: list[Converter | None]) -> Converter | None:
        key, item = parts
        if key is None and item is None:
            return None
        return lambda value: {
            (key(each) if key else each): (item(held) if item else held)
            for each, held in value.items()
        }

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return the form that DuckDB's driver takes for a map, not for a struct."""
        if value is None or hasattr(value, "as_sql"):
            return value
        if not isinstance(value, Mapping):
            raise ValidationError(f"{self} holds dicts, and was given {value!r}.")
        return {
            "key": [self.key_field.get_db_prep_value(each, connection) for each in value],
            "value": [self.value_field.get_db_prep_value(v, connection) for v in value.values()],
        }

    def get_transform(self, name: str) -> Any:
        """Return the value under a key, beside the registered transforms."""
        transform = super().get_transform(name)
        return transform or (lambda lhs: MapItem(lhs, name, self))

    def validate(self, value: Any, model_instance: Any) -> None:
        """Validate each key and value by its own field."""
        super().validate(value, model_instance)
        for key, item in value.items():
            _validate_part(self.key_field, key, model_instance)
            _validate_part(self.value_field, item, model_instance)

    def from_plain(self, value: Any) -> Any:
        return value and {
            _part_from_plain(self.key_field, key): _part_from_plain(self.value_field, item)
            for key, item in value
        }

    def to_plain(self, value: Any) -> Any:
        """Return pairs: a key of JSON could be text alone."""
        return value and [
            [_part_to_plain(self.key_field, key), _part_to_plain(self.value_field, item)]
            for key, item in value.items()
        ]


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


# Lookups and transforms.


class _Typed:
    """A right side that DuckDB is told the type of: an empty list has none by itself."""

    def process_rhs(self, compiler: Any, connection: Any) -> Any:
        sql, params = super().process_rhs(compiler, connection)  # type: ignore[misc]
        return f"CAST({sql} AS {_left_type(self, connection)})", params


def _left_type(lookup: Any, connection: Any) -> str:
    return str(lookup.lhs.output_field.cast_db_type(connection)).replace("%", "%%")


class _NestedExact(_Typed, Exact):
    pass


class _NestedIn(In):
    def resolve_expression_parameter(
        self, compiler: Any, connection: Any, sql: str, param: Any
    ) -> Any:
        sql, params = super().resolve_expression_parameter(compiler, connection, sql, param)
        return f"CAST({sql} AS {_left_type(self, connection)})", params


for _field in (ListField, StructField, MapField):
    _field.register_lookup(_NestedExact)
    _field.register_lookup(_NestedIn)


class _ListLookup(_Typed, Lookup):
    """`function(left, right)`, both lists."""

    function = ""
    prepare_rhs = False

    def get_db_prep_lookup(self, value: Any, connection: Any) -> Any:
        return "%s", [self.lhs.output_field.get_db_prep_value(value, connection)]

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        left, left_params = self.process_lhs(compiler, connection)
        right, right_params = self.process_rhs(compiler, connection)
        return f"{self.function}({left}, {right})", (*left_params, *right_params)


@ListField.register_lookup
class ListContains(_ListLookup):
    """All of the given values are in the list."""

    lookup_name, function = "contains", "list_has_all"


@ListField.register_lookup
class ListOverlap(_ListLookup):
    """One of the given values is in the list."""

    lookup_name, function = "overlap", "list_has_any"


@ListField.register_lookup
class ListContainedBy(_ListLookup):
    """The list has no other than the given values."""

    lookup_name = "contained_by"

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        left, left_params = self.process_lhs(compiler, connection)
        right, right_params = self.process_rhs(compiler, connection)
        return f"list_has_all({right}, {left})", (*right_params, *left_params)


class _Length(Transform):
    lookup_name = "len"
    output_field = IntegerField()


@ListField.register_lookup
class ListLength(_Length):
    """How many values the list has."""

    function = "len"


@MapField.register_lookup
class MapLength(_Length):
    """How many keys the map has."""

    function = "cardinality"


@MapField.register_lookup
class MapKeys(Transform):
    """The keys, as a list."""

    lookup_name, function = "keys", "map_keys"

    @property
    def output_field(self) -> Any:
        return ListField(self.lhs.output_field.key_field)


@MapField.register_lookup
class MapValues(Transform):
    """The values, as a list."""

    lookup_name, function = "values", "map_values"

    @property
    def output_field(self) -> Any:
        return ListField(self.lhs.output_field.value_field)


@MapField.register_lookup
class MapHasKey(Lookup):
    """The map has the key."""

    lookup_name = "has_key"
    prepare_rhs = False

    def get_db_prep_lookup(self, value: Any, connection: Any) -> Any:
        return "%s", [self.lhs.output_field.key_field.get_db_prep_value(value, connection)]

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        left, left_params = self.process_lhs(compiler, connection)
        right, right_params = self.process_rhs(compiler, connection)
        return f"map_contains({left}, {right})", (*left_params, *right_params)


class ListItem(Transform):
    """One value of a list, NULL beyond its end; `index` counts from 0."""

    def __init__(self, lhs: Any, index: int) -> None:
        super().__init__(lhs)
        self.index = index

    @property
    def output_field(self) -> Any:
        return self.lhs.output_field.base_field

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql, params = compiler.compile(self.lhs)
        return f"list_extract({sql}, {self.index + 1})", params


class ListSlice(Transform):
    """The values from `first` up to, but without `last`, counted from 0."""

    def __init__(self, lhs: Any, first: int, last: int) -> None:
        super().__init__(lhs)
        self.first, self.last = first, last

    @property
    def output_field(self) -> Any:
        return self.lhs.output_field

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql, params = compiler.compile(self.lhs)
        return f"list_slice({sql}, {self.first + 1}, {self.last})", params


class StructItem(Transform):
    """The value under one key of a struct."""

    def __init__(self, lhs: Any, name: str, field: Field[Any, Any]) -> None:
        super().__init__(lhs)
        self.name, self.part = name, field

    @property
    def output_field(self) -> Any:
        return self.part

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql, params = compiler.compile(self.lhs)
        key = "'{}'".format(self.name.replace("'", "''").replace("%", "%%"))
        return f"struct_extract({sql}, {key})", params


class MapItem(Transform):
    """The value under one key of a map, NULL where there is none."""

    def __init__(self, lhs: Any, name: str, field: MapField) -> None:
        super().__init__(lhs)
        self.key = field.key_field.to_python(name)
        self.map_field = field

    @property
    def output_field(self) -> Any:
        return self.map_field.value_field

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql, params = compiler.compile(self.lhs)
        key = self.map_field.key_field.get_db_prep_value(self.key, connection)
        return f"map_extract_value({sql}, %s)", (*params, key)
