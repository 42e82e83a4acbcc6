"""Expressions and lookups that DuckDB writes in its own way; `register()` tells Django."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from django.db import NotSupportedError
from django.db.models import IntegerField, aggregates, expressions, functions, lookups
from django.db.models.fields import json as jsonfield
from django.db.models.fields import tuple_lookups
from django.db.models.sql import Query

from . import digests
from .parameters import StatementTime

SQL = tuple[str, Sequence[Any]]


def register() -> None:
    """Give Django's expressions their `as_duckdb`, once; subclasses that have one keep it."""
    for expression, method in _METHODS.items():
        expression.as_duckdb = method


def _template(**extra: str) -> Callable[..., SQL]:
    """Return a method that writes the expression with another template or function."""

    def as_duckdb(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
        return self.as_sql(compiler, connection, **{**extra, **context})

    return as_duckdb


def _digest(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Call Python's digest. Raises NotSupportedError without numpy."""
    if not digests.available():
        raise NotSupportedError(
            f"{self.function} is computed by Python, which DuckDB calls by way of numpy. "
            f"Run: pip install numpy, also where the process that owns the file runs."
        )
    return self.as_sql(compiler, connection, **context)


def _now(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Write the time of the statement as a naive timestamp in the connection's zone."""
    return "CAST(%s AS TIMESTAMP)", [StatementTime(connection.timezone_name)]


def _aggregate(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Sum and average durations by their microseconds; DuckDB has neither for INTERVAL."""
    if self.output_field.get_internal_type() != "DurationField":
        return self.as_sql(compiler, connection, **context)
    # On a copy: Django 5.2 passes a template of its own to as_sql where there is a filter.
    inner = self.copy()
    inner.template = (self.template or "").replace("%(expressions)s", "epoch_us(%(expressions)s)")
    sql, params = inner.as_sql(compiler, connection, **context)
    return f"to_microseconds(CAST({sql} AS BIGINT))", params


def _duration(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Multiply and divide a duration by its microseconds; DuckDB divides no INTERVAL."""
    if self.connector not in ("*", "/"):
        return self.as_sql(compiler, connection)
    sides, params = [], []
    for side in (self.lhs, self.rhs):
        sql, values = compiler.compile(side)
        is_duration = side.output_field.get_internal_type() == "DurationField"
        sides.append(f"epoch_us({sql})" if is_duration else f"CAST({sql} AS DOUBLE)")
        params += values
    return f"to_microseconds(CAST({f' {self.connector} '.join(sides)} AS BIGINT))", params


def _cast(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Cast, cutting text to its length; DuckDB's VARCHAR(n) takes any."""
    sql, params = self.as_sql(compiler, connection, **context)
    field = self.output_field
    if field.get_internal_type() == "CharField" and field.max_length is not None:
        return f"left({sql}, {int(field.max_length)})", params
    return sql, params


def _pad(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Pad to a length, of which DuckDB wants an INTEGER."""
    clone = self.copy()
    text, length, fill = self.get_source_expressions()
    clone.set_source_expressions([text, functions.Cast(length, IntegerField()), fill])
    return clone.as_sql(compiler, connection, **context)


def _tuple_compares(operator: str) -> Callable[..., SQL]:
    """
    Return a comparison of several columns with a subquery's, both as one struct.

    DuckDB's own row comparison wants a subquery of one column, and its IN of
    several cannot look at the outer query. A struct with a NULL compares as a
    value, where SQL knows no answer: that is asked first.
    """

    def as_duckdb(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
        features = connection.features
        # Django's tests take the feature away and expect its refusal.
        refused = not getattr(features, "supports_tuple_comparison_against_subquery", True)
        if not isinstance(self.rhs, Query) or (refused and operator != "="):
            return self.as_sql(compiler, connection)
        columns, params = [], []
        for column in self.lhs:
            sql, values = compiler.compile(column)
            columns.append(sql)
            params += values
        rhs, rhs_params = self.process_rhs(compiler, connection)
        names = [f"k{number}" for number, _ in enumerate(columns)]
        subquery = f"(SELECT {_struct(names)} FROM {rhs} AS levada_row ({', '.join(names)}))"
        compared = f"({_struct(columns)} {operator} {subquery})"
        return compared, [*params, *params, *rhs_params]

    return as_duckdb


def _struct(columns: Sequence[str]) -> str:
    """Write columns as one struct, which is NULL where one of them is."""
    missing = " OR ".join(f"{column} IS NULL" for column in columns)
    return f"CASE WHEN {missing} THEN NULL ELSE row({', '.join(columns)}) END"


def _json_object(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    return self.as_sql(compiler, connection, function="json_object", **context)


def _json_array(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    return self.as_sql(compiler, connection, function="json_array", **context)


_SHIFTED_UUID7 = (
    "CAST(regexp_replace(format('{:012x}', epoch_ms("
    "uuid_extract_timestamp(uuidv7()) + %(expressions)s"
    r")), '(.{8})(.{4})', '\1-\2') || substr(CAST(uuidv7() AS VARCHAR), 14) AS UUID)"
)
"""A UUID of another time: its first 48 bits are milliseconds, the rest is a new one's."""


def _uuid7(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Write UUID7; DuckDB's takes no shift."""
    if self.source_expressions:
        context = {"template": _SHIFTED_UUID7, **context}
    return self.as_sql(compiler, connection, **context)


# Patterns. A prefix by starts_with takes 2.7 ms where LIKE … ESCAPE takes 29, a part in any case
# 24 ms by ILIKE alone and 42 with ESCAPE (a million names, DuckDB 2.0.0).


def _part_of(function: str) -> Callable[..., SQL]:
    """Return a lookup of a fixed text as `function(column, text)`: nothing to escape."""

    def as_duckdb(self: Any, compiler: Any, connection: Any) -> SQL:
        text = _fixed(self, compiler, connection)
        if text is None:
            return self.as_sql(compiler, connection)
        lhs, params = self.process_lhs(compiler, connection)
        return f"{function}({lhs}, %s)", (*params, text)

    return as_duckdb


def _ilike(self: Any, compiler: Any, connection: Any) -> SQL:
    """Write ILIKE without ESCAPE where the text has nothing to escape."""
    text = _fixed(self, compiler, connection)
    if text is None or any(letter in text for letter in "\\%_"):
        return self.as_sql(compiler, connection)
    lhs, params = self.process_lhs(compiler, connection)
    return f"{lhs} ILIKE %s", (*params, self.param_pattern % text)


def _fixed(lookup: Any, compiler: Any, connection: Any) -> str | None:
    """Return the text that is looked up, None where the database makes it."""
    if not lookup.rhs_is_direct_value() or lookup.bilateral_transforms:
        return None
    _, params = super(lookups.PatternLookup, lookup).process_rhs(compiler, connection)
    return str(params[0])


# JSON. A path is `$."key"[0]`; an index from the end is `[#-1]`.


def json_path(keys: Sequence[str], *, last_is_key: bool = False) -> str:
    """Return DuckDB's path to `keys`; integers are indexes, the last one not if `last_is_key`."""
    if any(key in ("*", "") for key in keys):
        return _json_pointer(keys)
    path = ["$"]
    for at, key in enumerate(keys):
        number = _index(key)
        if number is None or (last_is_key and at == len(keys) - 1):
            path.append("." + _quoted_key(str(key)))
        else:
            path.append(f"[{number}]" if number >= 0 else f"[#{number}]")
    return "".join(path)


def _json_pointer(keys: Sequence[str]) -> str:
    """Return the path as JSON pointer: in the other kind "*" means every key, and "" none."""
    if any((_index(key) or 0) < 0 for key in keys):
        raise NotSupportedError("DuckDB finds no index from the end beside the key '*' or ''.")
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def _index(key: Any) -> int | None:
    try:
        return int(key)
    except ValueError:
        return None


def _quoted_key(key: str) -> str:
    # Not as JSON: in a path DuckDB takes a newline for itself, but an escaped one for an n.
    return '"{}"'.format(key.replace("\\", "\\\\").replace('"', '\\"'))


def _key(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    lhs, params, keys = self.preprocess_lhs(compiler, connection)
    return f"json_extract({lhs}, %s)", (*params, json_path(keys))


def _key_text(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    lhs, params, keys = self.preprocess_lhs(compiler, connection)
    return f"json_extract_string({lhs}, %s)", (*params, json_path(keys))


def _document(self: Any, compiler: Any, connection: Any) -> tuple[str, Sequence[Any], list[str]]:
    """Return the document `self.lhs` looks into, and the keys it already follows."""
    if isinstance(self.lhs, jsonfield.KeyTransform):
        return self.lhs.preprocess_lhs(compiler, connection)
    sql, params = self.process_lhs(compiler, connection)
    return sql, params, []


def _has_key(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    document, document_params, keys = _document(self, compiler, connection)
    wanted = self.rhs if isinstance(self.rhs, (list, tuple)) else [self.rhs]
    last_is_key = not isinstance(self, jsonfield.HasKeyOrArrayIndex)
    parts, params = [], []
    for each in wanted:
        tail = [each]
        if isinstance(each, jsonfield.KeyTransform):
            *_, tail = each.preprocess_lhs(compiler, connection)
        parts.append(f"json_exists({document}, %s)")
        params += [*document_params, json_path([*keys, *tail], last_is_key=last_is_key)]
    return f"({(self.logical_operator or ' AND ').join(parts)})", params


def _key_is_null(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """`key__isnull` asks whether the key is absent; a JSON null is present."""
    document, params, keys = self.lhs.preprocess_lhs(compiler, connection)
    exists = f"coalesce(json_exists({document}, %s), FALSE)"
    return (f"NOT {exists}" if self.rhs else exists), (*params, json_path(keys))


def _contains(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """
    Write PostgreSQL's `@>`: objects key by key, arrays element by element.

    DuckDB's json_contains finds its right side at any depth; it is used only
    where the right side is not known before the query runs.
    """
    lhs, lhs_params = self.process_lhs(compiler, connection)
    rhs, rhs_params = self.process_rhs(compiler, connection)
    if not self.rhs_is_direct_value():
        return f"json_contains({lhs}, CAST({rhs} AS JSON))", (*lhs_params, *rhs_params)
    document = f"CAST({lhs} AS JSON)"
    sql, params = _holds(document, list(lhs_params), json.loads(rhs_params[0]), scalars=True)
    return sql, params


def _holds(
    document: str, document_params: list[Any], value: Any, *, scalars: bool = False, depth: int = 0
) -> tuple[str, list[Any]]:
    """Return the condition that the JSON `document` contains `value`; scalars: also in an array."""
    if isinstance(value, dict):
        parts, params = [f"json_type({document}) = 'OBJECT'"], [*document_params]
        for key, each in value.items():
            inner = f"json_extract({document}, %s)"
            sql, values = _holds(
                inner, [*document_params, json_path([key], last_is_key=True)], each
            )
            parts.append(sql)
            params += values
        return f"({' AND '.join(parts)})", params
    if isinstance(value, list):
        parts, params = [f"json_type({document}) = 'ARRAY'"], [*document_params]
        for each in value:
            item = f"x{depth}"
            # DuckDB makes a JSON null SQL's when it makes a list of an array.
            present = f"coalesce({item}, CAST('null' AS JSON))"
            sql, values = _holds(present, [], each, depth=depth + 1)
            elements = f"TRY_CAST({document} AS JSON[])"
            parts.append(f"len(list_filter({elements}, lambda {item}: {sql})) > 0")
            params += [*document_params, *values]
        return f"({' AND '.join(parts)})", params
    text = json.dumps(value)
    equal = f"{_normal(document)} = {_normal('%s')}"
    if not scalars:
        return f"coalesce({equal}, FALSE)", [*document_params, text]
    sql, params = _holds(document, document_params, [value])
    return f"(coalesce({equal}, FALSE) OR {sql})", [*document_params, text, *params]


def _contained_by(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Look whether the right side contains the left, of the same type and with all its keys."""
    lhs, lhs_params = self.process_lhs(compiler, connection)
    rhs, rhs_params = self.process_rhs(compiler, connection)
    whole = f"CAST({rhs} AS JSON)"
    held = f"json_contains({whole}, {lhs})"
    alike = f"json_type({whole}) IN ('ARRAY', json_type({lhs}))"
    keys = f"coalesce(list_has_all(json_keys({whole}), json_keys({lhs})), TRUE)"
    pairs = [*rhs_params, *lhs_params]
    return f"({held} AND {alike} AND {keys})", [*pairs, *pairs, *pairs]


def _normal(sql: str) -> str:
    """Write a JSON value without insignificant spaces and escapes, so that text compares it."""
    return f"json_extract(CAST({sql} AS JSON), '$')"


def _json_exact(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    lhs, lhs_params = self.process_lhs(compiler, connection)
    rhs, rhs_params = self.process_rhs(compiler, connection)
    if list(rhs_params) == [None]:
        rhs_params = ["null"]
    return f"{_normal(lhs)} = {_normal(rhs)}", (*lhs_params, *rhs_params)


class _NormalIn:
    """`__in` with the left side and each value normalised."""

    def process_lhs(self, compiler: Any, connection: Any, *lhs: Any) -> SQL:
        sql, params = super().process_lhs(compiler, connection, *lhs)  # type: ignore[misc]
        return _normal(sql), params

    def resolve_expression_parameter(
        self, compiler: Any, connection: Any, sql: str, param: Any
    ) -> SQL:
        found: Any = super()
        sql, params = found.resolve_expression_parameter(compiler, connection, sql, param)
        return _normal(sql), params


_NORMAL_IN: dict[type, type] = {}
"""Each lookup class that was used on JSON, and its twin with normalised values."""


def _normal_in(lookup: type) -> type:
    if lookup not in _NORMAL_IN:
        _NORMAL_IN[lookup] = type(lookup.__name__, (_NormalIn, lookup), {})
    return _NORMAL_IN[lookup]


def _in(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Compare JSON with each value as `exact` does; anything else is Django's business."""
    is_json = isinstance(getattr(self.lhs, "output_field", None), jsonfield.JSONField)
    is_list = self.rhs_is_direct_value() or isinstance(self.rhs, expressions.ExpressionList)
    if not is_json or not is_list:
        return self.as_sql(compiler, connection)
    twin = copy.copy(self)
    twin.__class__ = _normal_in(type(self))
    return twin.as_sql(compiler, connection)


def _order_by(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """
    Order JSON values as numbers where they are numbers, by their text otherwise.

    Under DISTINCT only what is selected can be ordered by: then by text alone.
    """
    value = self.expression
    if isinstance(value, expressions.Ref):
        value = value.source
    if (
        not isinstance(value, jsonfield.KeyTransform)
        or isinstance(value, jsonfield.KeyTextTransform)
        or compiler.query.distinct
    ):
        return self.as_sql(compiler, connection)
    number, text = self.copy(), self.copy()
    number.set_source_expressions([expressions.Func(value, template=_NUMBER)])
    text.set_source_expressions([value])
    first, first_params = number.as_sql(compiler, connection)
    second, second_params = text.as_sql(compiler, connection)
    return f"{first}, {second}", [*first_params, *second_params]


_NUMBER = "TRY_CAST(%(expressions)s AS DOUBLE)"


def _key_compares(operator: str) -> Callable[..., SQL]:
    """Return `<`, `>` … on a key: as text if the other side is a string, as number otherwise."""

    def as_duckdb(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
        document, params, keys = self.lhs.preprocess_lhs(compiler, connection)
        left = f"json_extract_string({document}, %s)"
        left_params = [*params, json_path(keys)]
        rhs, rhs_params = self.process_rhs(compiler, connection)
        if not self.rhs_is_direct_value():
            right = f"TRY_CAST({rhs} AS DOUBLE)"
            return f"TRY_CAST({left} AS DOUBLE) {operator} {right}", (*left_params, *rhs_params)
        value = json.loads(rhs_params[0]) if isinstance(rhs_params[0], str) else rhs_params[0]
        if isinstance(value, str):
            return f"{left} {operator} %s", (*left_params, value)
        return f"TRY_CAST({left} AS DOUBLE) {operator} %s", (*left_params, value)

    return as_duckdb


_METHODS: dict[type, Callable[..., SQL]] = {
    functions.Now: _now,
    functions.SHA224: _digest,
    functions.SHA384: _digest,
    functions.SHA512: _digest,
    functions.JSONObject: _json_object,
    functions.StrIndex: _template(function="STRPOS"),
    functions.Ord: _template(function="ORD"),
    lookups.Contains: _part_of("contains"),
    lookups.StartsWith: _part_of("starts_with"),
    lookups.EndsWith: _part_of("suffix"),
    lookups.IContains: _ilike,
    lookups.IStartsWith: _ilike,
    lookups.IEndsWith: _ilike,
    functions.Cast: _cast,
    functions.LPad: _pad,
    functions.RPad: _pad,
    expressions.DurationExpression: _duration,
    expressions.OrderBy: _order_by,
    tuple_lookups.TupleExact: _tuple_compares("="),
    tuple_lookups.TupleGreaterThan: _tuple_compares(">"),
    tuple_lookups.TupleGreaterThanOrEqual: _tuple_compares(">="),
    tuple_lookups.TupleLessThan: _tuple_compares("<"),
    tuple_lookups.TupleLessThanOrEqual: _tuple_compares("<="),
    functions.Random: _template(function="RANDOM"),
    aggregates.Sum: _aggregate,
    aggregates.Avg: _aggregate,
    jsonfield.KeyTransform: _key,
    jsonfield.KeyTextTransform: _key_text,
    jsonfield.HasKeyLookup: _has_key,
    jsonfield.KeyTransformIsNull: _key_is_null,
    lookups.In: _in,
    jsonfield.DataContains: _contains,
    jsonfield.ContainedBy: _contained_by,
    jsonfield.JSONExact: _json_exact,
    jsonfield.KeyTransformLt: _key_compares("<"),
    jsonfield.KeyTransformLte: _key_compares("<="),
    jsonfield.KeyTransformGt: _key_compares(">"),
    jsonfield.KeyTransformGte: _key_compares(">="),
}
if hasattr(functions, "JSONArray"):
    _METHODS[functions.JSONArray] = _json_array
if hasattr(functions, "UUID7"):
    _METHODS[functions.UUID7] = _uuid7
