"""What a statement's text tells the DuckDB backend."""

import pytest

from levada.stores.duckdb.statements import (
    SavepointCommand,
    insert_of,
    leaves_no_trace,
    savepoint_command,
    sets_sequences,
    tells_time,
    volatile_call,
)


@pytest.mark.parametrize(
    ("sql", "act"),
    [
        ('SAVEPOINT "s1"', "set"),
        ('RELEASE SAVEPOINT "s1"', "release"),
        ("release s1;", "release"),
        ('ROLLBACK TO SAVEPOINT "s1"', "rollback"),
        (" rollback transaction to s1", "rollback"),
        ("ROLLBACK", None),
        ("SELECT 1", None),
    ],
)
def test_savepoint_commands_are_told_apart(sql, act):
    assert savepoint_command(sql) == (SavepointCommand(act, "s1") if act else None)


@pytest.mark.parametrize(
    ("sql", "none"),
    [
        ("SELECT 1", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("SET threads = 1", True),
        ("COPY t TO 'f.parquet'", True),
        ("COPY (SELECT * FROM t) TO 'f.parquet'", True),
        ("EXPLAIN SELECT 1", True),
        ("SELECT 1; INSERT INTO t VALUES (1)", False),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", False),
        ("EXPLAIN ANALYZE DELETE FROM t", False),
        ("SELECT setval('s', 1)", False),
        ("COPY t FROM 'f.parquet'", False),
        ("UPDATE t SET a = 1", False),
    ],
)
def test_statements_without_a_trace_need_no_journal(sql, none):
    assert leaves_no_trace(sql) is none


@pytest.mark.parametrize(
    ("sql", "called"),
    [
        ("INSERT INTO t VALUES (uuid())", "uuid()"),
        ('INSERT INTO t SELECT CAST(a AS UUID), "random" FROM u', None),
        ("INSERT INTO t VALUES ('random()')", None),
        ("UPDATE t SET a = nextval('s')", "nextval()"),
        ("CREATE TABLE t (a UUID DEFAULT uuid())", None),
        ("CREATE TABLE t AS SELECT random() AS a", "random()"),
        ("UPDATE t SET a = localtime", "localtime"),
        ("EXECUTE prepared(1)", "EXECUTE"),
    ],
)
def test_what_gives_another_value_each_time_is_found(sql, called):
    assert volatile_call(sql) == called


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("UPDATE t SET a = now()", True),
        ("UPDATE t SET a = CURRENT_TIMESTAMP", True),
        ("UPDATE t SET a = 'now()', \"current_date\" = 1", False),
        ("UPDATE t SET now = 1", False),
    ],
)
def test_what_asks_for_the_time_is_found(sql, told):
    assert tells_time(sql) is told


@pytest.mark.parametrize(
    ("sql", "omitted", "returned", "conflicts"),
    [
        ('INSERT INTO "t" ("a", "b") VALUES ($1, $2) RETURNING "t"."id"', True, True, False),
        ('INSERT INTO "t" ("id", "a") VALUES ($1, $2)', False, False, False),
        ('INSERT INTO "t" ("id") VALUES (DEFAULT)', True, False, False),
        ("INSERT INTO main.t DEFAULT VALUES RETURNING *", True, True, False),
        ("insert into t values (1, 2)", False, False, False),
        ("INSERT INTO t BY NAME SELECT 1 AS a", True, False, False),
        ("INSERT OR REPLACE INTO t (a) SELECT a FROM x", True, False, True),
        ("WITH q AS (SELECT 1) INSERT INTO t (a) SELECT * FROM q", True, False, False),
        ("INSERT INTO t(a) VALUES ('returning id, on conflict')", True, False, False),
        ("INSERT INTO t (a) (SELECT 1) ON CONFLICT DO NOTHING", True, False, True),
        ("INSERT INTO t (SELECT 1, 2)", False, False, False),
        ("MERGE INTO main.t USING u ON t.a = u.a WHEN NOT MATCHED THEN INSERT", True, False, True),
        ("COPY t (a, b) FROM 'f.csv'", True, False, False),
        ("COPY t FROM 'f.csv'", False, False, False),
    ],
)
def test_an_insert_tells_whether_a_key_is_drawn_and_told(sql, omitted, returned, conflicts):
    insert = insert_of(sql)
    assert insert.table == "t"
    assert insert.omits("ID") is omitted
    assert insert.returns("ID") is returned
    assert insert.conflicts is conflicts


def test_the_sequences_that_are_set_are_named():
    sql = "SELECT setval('\"t_id_seq\"', 1, false), SETVAL('main.s', 3)"
    assert sets_sequences(sql) == ["t_id_seq", "s"]
    assert sets_sequences("SELECT 'setval'") == []
