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
    """Write the current time as a naive timestamp in the connection's zone."""
    zone = connection.timezone_name.replace("'", "''")
    return self.as_sql(compiler, connection, template=f"timezone('{zone}', now())", **context)


def _aggregate(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Sum and average durations by their microseconds; DuckDB has neither for INTERVAL."""
    if self.output_field.get_internal_type() != "DurationField":
        return self.as_sql(compiler, connection, **context)
    template = (self.template or "").replace("%(expressions)s", "epoch_us(%(expressions)s)")
    sql, params = self.as_sql(
        compiler, connection, **{"template": template, **context}
    )  # `filter` and `order by` keep their place in the template
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


def _tuple_exact(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    """Compare several columns with a subquery's by IN: DuckDB's `=` wants one column."""
    if isinstance(self.rhs, Query):
        return tuple_lookups.TupleIn(self.lhs, self.rhs).as_sql(compiler, connection)
    return self.as_sql(compiler, connection)


def _json_object(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    return self.as_sql(compiler, connection, function="json_object", **context)


def _json_array(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    return self.as_sql(compiler, connection, function="json_array", **context)


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
    path = ["$"]
    for at, key in enumerate(keys):
        number = _index(key)
        if number is None or (last_is_key and at == len(keys) - 1):
            path.append("." + _quoted_key(str(key)))
        else:
            path.append(f"[{number}]" if number >= 0 else f"[#{number}]")
    return "".join(path)


def _index(key: Any) -> int | None:
    try:
        return int(key)
    except ValueError:
        return None


def _quoted_key(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)


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


class _KeyIn(jsonfield.KeyTransformIn):
    """`key__in` with each value normalised."""

    def resolve_expression_parameter(
        self, compiler: Any, connection: Any, sql: str, param: Any
    ) -> SQL:
        sql, params = super().resolve_expression_parameter(compiler, connection, sql, param)
        return (sql if hasattr(param, "as_sql") else _normal(sql)), params


def _key_in(self: Any, compiler: Any, connection: Any, **context: Any) -> SQL:
    twin = copy.copy(self)
    twin.__class__ = _KeyIn
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
    tuple_lookups.TupleExact: _tuple_exact,
    functions.Random: _template(function="RANDOM"),
    aggregates.Sum: _aggregate,
    aggregates.Avg: _aggregate,
    jsonfield.KeyTransform: _key,
    jsonfield.KeyTextTransform: _key_text,
    jsonfield.HasKeyLookup: _has_key,
    jsonfield.KeyTransformIsNull: _key_is_null,
    jsonfield.KeyTransformIn: _key_in,
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
