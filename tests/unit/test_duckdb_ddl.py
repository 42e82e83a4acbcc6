"""What DDL tells only in its text, as DuckDB 2.0 itself writes it."""

import duckdb
import pytest

from levada.stores.duckdb import ddl


@pytest.fixture
def raw():
    with duckdb.connect() as connection:
        yield connection


def told(raw, what, source):
    return raw.execute(f"SELECT {what} FROM {source}").fetchone()[0]


@pytest.mark.parametrize("name", ["low", "it's low", "100% (low) OR IS NULL", 'lo"w'])
def test_a_check_carries_its_name(raw, name):
    raw.execute(f"CREATE TABLE t (a INTEGER, {ddl.named_check(name, 'a > 0 AND a < 5')})")
    assert ddl.check_name(told(raw, "constraint_text", "duckdb_constraints()")) == name
    raw.execute("INSERT INTO t VALUES (1), (NULL)")
    with pytest.raises(duckdb.ConstraintException, match="CHECK"):
        raw.execute("INSERT INTO t VALUES (5)")


def test_a_check_without_our_mark_has_no_name(raw):
    raw.execute("CREATE TABLE t (a INTEGER, CONSTRAINT low CHECK (a IS NULL OR a < 5))")
    assert ddl.check_name(told(raw, "constraint_text", "duckdb_constraints()")) is None


def test_collations_are_read_from_the_tables_statement(raw):
    raw.execute(
        'CREATE TABLE "t (x" ("p""q(" INTEGER, "se lect" VARCHAR COLLATE nocase, '
        "plain VARCHAR DEFAULT 'COLLATE de,', b VARCHAR COLLATE noaccent.nocase DEFAULT ')' NOT "
        "NULL, CHECK (plain <> '('), UNIQUE (\"se lect\"))"
    )
    assert ddl.collations(told(raw, "sql", "duckdb_tables()")) == {
        "se lect": "nocase",
        "b": "noaccent.nocase",
    }


def test_what_an_index_covers(raw):
    raw.execute('CREATE TABLE t (a INTEGER, b INTEGER, "x, y" VARCHAR)')
    covers = ["a", '"x, y"', "(a + 1)", "(coalesce(b, 3))"]
    covers += [f"({ddl.equal_if_null('b')})", ddl.only_where("a > 1 AND b IS NULL", '"x, y"')]
    covers += [ddl.only_where("b > 2", ddl.equal_if_null('"x, y"'))]
    raw.execute(f"CREATE INDEX i ON t ({', '.join(covers)})")
    listed = ddl.listed(told(raw, "sql", "duckdb_indexes()"))
    columns = ["a", "x, y", None, None, "b", "x, y", "x, y"]
    assert list(map(ddl.indexed_column, listed)) == columns


def test_only_columns_are_renamed(raw):
    raw.execute('CREATE TABLE t (date TIMESTAMP, lower VARCHAR, "select" INTEGER)')
    raw.execute(
        "CREATE INDEX i ON t ((CAST(date AS DATE)), (lower(lower) || 'date lower'), "
        '("select" + 1))'
    )
    sql = ", ".join(ddl.listed(told(raw, "sql", "duckdb_indexes()")))
    for name in ("date", "lower", "select"):
        assert ddl.mentions(sql, name)
        sql = ddl.rename_identifier(sql, name, f"new {name}")
    assert not ddl.mentions(sql, "date")
    raw.execute("DROP INDEX i")
    for name in ("date", "lower", "select"):
        raw.execute(f'ALTER TABLE t RENAME COLUMN "{name}" TO "new {name}"')
    raw.execute(f"CREATE INDEX i ON t ({sql})")
    assert "'date lower'" in told(raw, "sql", "duckdb_indexes()")
