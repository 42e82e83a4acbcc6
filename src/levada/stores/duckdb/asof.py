"""
`QuerySet.asof_join()`: each row with the latest row of another table at its time.

    trades.asof_join(
        Quote.objects.filter(venue="X"), on="at", by=["symbol"], values={"bid": "price"}
    )

DuckDB's ASOF join sorts both sides once, where a correlated subquery would
look the other table up for each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import F, QuerySet
from django.db.models.expressions import Col

from .expressions import SQL, plain_field, refuse_elsewhere

Names = Sequence[str] | Mapping[str, str]


def asof_join(
    queryset: QuerySet[Any, Any],
    other: QuerySet[Any, Any],
    *,
    on: str | tuple[str, str],
    values: Names,
    by: Names = (),
    forward: bool = False,
    strict: bool = False,
) -> QuerySet[Any, Any]:
    """
    Return `queryset` annotated with `values` of one row of `other` for each of its rows.

    on: the field that orders both sides, or a pair, ours and theirs. The row
        taken is the one whose value is the largest not above ours; with
        `forward` the smallest not below; with `strict` never an equal one.
    by: fields that are equal on both sides; a mapping says ours and theirs.
    values: their fields; a mapping says the annotation's name and the field.
    A row without a partner stays, with NULL for the values.
    """
    if not isinstance(other, QuerySet) or other.query.combinator:
        raise TypeError("asof_join() joins a queryset of one model, which is no union.")
    ours_on, theirs_on = (on, on) if isinstance(on, str) else on
    pairs = [(ours_on, theirs_on), *_pairs(by)]
    named = _pairs(values)
    if not named:
        raise TypeError("asof_join() wants values: names of the other's fields.")
    joined = queryset.all()
    query: Any = joined.query
    if query.is_sliced or query.combinator or query.group_by is not None:
        raise TypeError("asof_join() comes before slices, unions and aggregates.")
    columns = {f"levada_key_{at}": F(theirs) for at, (_, theirs) in enumerate(pairs)}
    columns |= {f"levada_value_{at}": F(theirs) for at, (_, theirs) in enumerate(named)}
    inner: Any = other.order_by().annotate(**columns).values(*columns).query
    inner.subquery = True
    ours = [F(name).resolve_expression(query) for name, _ in pairs]
    alias = f"levada_asof_{sum(name.startswith('levada_asof_') for name in query.table_map) + 1}"
    operator = ("<" if forward else ">") + ("" if strict else "=")
    _add(query, _AsOfJoin(alias, alias, query.get_initial_alias(), inner, ours, operator))
    for at, (name, _) in enumerate(named):
        source = f"levada_value_{at}"
        field = plain_field(inner.annotations[source].output_field).clone()
        field.set_attributes_from_name(source)
        field.column, field.model = source, other.model
        joined = joined.annotate(**{name: Col(alias, field)})
    return joined


def _pairs(names: Names) -> list[tuple[str, str]]:
    if isinstance(names, Mapping):
        return list(names.items())
    if isinstance(names, str):
        raise TypeError(f"asof_join() wants a list of names, or a mapping, not {names!r}.")
    return [(name, name) for name in names]


def _add(query: Any, join: _AsOfJoin) -> None:
    query.alias_map[join.table_alias] = join
    query.alias_refcount[join.table_alias] = 1
    query.table_map[join.table_name] = [join.table_alias]


class _AsOfJoin:
    """
    One ASOF join in a query's FROM clause, as Django's `Join` is one join.

    inner: the other side, its columns levada_key_0 … and levada_value_0 ….
    ours: expressions for the keys, the first compared by `operator`.
    """

    join_type = "ASOF LEFT JOIN"
    filtered_relation = None
    nullable = True

    def __init__(
        self,
        table_name: str,
        table_alias: str,
        parent_alias: str,
        inner: Any,
        ours: Sequence[Any],
        operator: str,
    ) -> None:
        self.table_name, self.table_alias = table_name, table_alias
        self.parent_alias = parent_alias
        self.inner, self.ours, self.operator = inner, list(ours), operator

    def as_sql(self, compiler: Any, connection: Any) -> SQL:
        """Write the join."""
        refuse_elsewhere("asof_join()", connection)
        sql, params = compiler.compile(self.inner)
        alias = connection.ops.quote_name(self.table_alias)
        conditions, all_params = [], [*params]
        for at, expression in enumerate(self.ours):
            left, left_params = compiler.compile(expression)
            conditions.append(f'{left} {"=" if at else self.operator} {alias}."levada_key_{at}"')
            all_params += left_params
        return f"{self.join_type} {sql} AS {alias} ON ({' AND '.join(conditions)})", all_params

    def relabeled_clone(self, change_map: Mapping[str, str]) -> _AsOfJoin:
        """Return the join under new aliases."""
        return _AsOfJoin(
            self.table_name,
            change_map.get(self.table_alias, self.table_alias),
            change_map.get(self.parent_alias, self.parent_alias),
            self.inner,
            [each.relabeled_clone(change_map) for each in self.ours],
            self.operator,
        )

    def promote(self) -> _AsOfJoin:
        """Return the join: it is an outer one."""
        return self

    demote = promote

    @property
    def identity(self) -> tuple[Any, ...]:
        return type(self), self.table_name, self.table_alias, id(self.inner)

    def equals(self, other: Any) -> bool:
        """Say no: each join is its own."""
        return self is other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _AsOfJoin) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)
