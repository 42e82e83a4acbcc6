"""Compilers of a lake: INSERT draws its automatic keys first."""

from __future__ import annotations

from typing import Any

from django.db.models import AutoField

from .. import compiler as duckdb
from . import keys

SQLCompiler = duckdb.SQLCompiler
SQLDeleteCompiler = duckdb.SQLDeleteCompiler
SQLUpdateCompiler = duckdb.SQLUpdateCompiler
SQLAggregateCompiler = duckdb.SQLAggregateCompiler


class SQLInsertCompiler(duckdb.SQLInsertCompiler):
    """INSERT."""

    def execute_sql(self, returning_fields: Any = None) -> list[Any]:
        """Insert the query's objects; returns the drawn key, where Django asks for it."""
        meta = self.query.get_meta()
        auto = next((each for each in meta.local_fields if isinstance(each, AutoField)), None)
        table, drawn = str(meta.db_table), False
        if auto is not None and auto not in self.query.fields:
            numbers = keys.take(self.connection, table, str(auto.column), len(self.query.objs))
            for each, number in zip(self.query.objs, numbers, strict=True):
                setattr(each, auto.attname, number)
            self.query.fields = [auto, *self.query.fields]
            drawn = True
        super().execute_sql(None)
        if auto is not None and not drawn:
            given = [getattr(each, auto.attname) for each in self.query.objs]
            numbers = [each for each in given if isinstance(each, int)]
            if numbers:
                keys.pass_over(self.connection, table, str(auto.column), max(numbers))
        if returning_fields and drawn and returning_fields[0] is auto:
            return [(getattr(self.query.objs[0], auto.attname),)]
        return []
