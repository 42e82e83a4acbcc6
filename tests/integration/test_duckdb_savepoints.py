"""Savepoints on DuckDB: a transaction's statements run again, exactly, up to a mark."""

import threading
import uuid
from contextlib import contextmanager
from datetime import UTC

import duckdb
import pyarrow
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management.color import no_style
from django.db import (
    DEFAULT_DB_ALIAS,
    IntegrityError,
    OperationalError,
    connections,
    models,
    transaction,
)
from django.db.models.functions import Now
from django.db.transaction import TransactionManagementError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from levada.errors import SavepointLost, StoreGone
from levada.stores.duckdb import ownership
from tests.conditions import wait_until
from tests.integration.duckdb_child import Child
from tests.shop.models import Order, Tag

savepoint_create = getattr(transaction, "savepoint_create", transaction.savepoint)
"""Django 6.1's name for `savepoint()`."""


@pytest.fixture
def alias(tmp_path, django_db_blocker):
    """Make an alias for a database: in memory, or in a file, with OPTIONS."""
    made = []

    def make(name=None, **options):
        alias = f"duck{len(made)}"
        connections.databases[alias] = connections.configure_settings(
            {
                DEFAULT_DB_ALIAS: {},
                alias: {
                    "ENGINE": "levada.stores.duckdb",
                    "NAME": name or f":memory:{uuid.uuid4().hex}",
                    "OPTIONS": options,
                },
            }
        )[alias]
        made.append(alias)
        return connections[alias]

    with django_db_blocker.unblock():
        yield make
        for each in made:
            connection = connections[each]
            connection.close()
            ownership.release(connection.path)
            del connections[each], connections.databases[each]


@pytest.fixture
def duck(alias):
    """A database in memory with the tables of Tag and Order."""
    connection = alias()
    with connection.schema_editor() as editor:
        editor.create_model(Tag)
        editor.create_model(Order)
    return connection


def run(connection, sql, params=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else cursor.rowcount


@contextmanager
def undone(connection, error, match=None):
    """Run a block that must raise `error`, in an atomic() of its own."""
    with pytest.raises(error, match=match) as raised, transaction.atomic(connection.alias):
        yield raised


def fail(connection):
    """Run a statement that fails in a block of its own."""
    with undone(connection, IntegrityError):
        run(connection, "INSERT INTO shop_tag (id, name) VALUES (100, 'twice'), (100, 'twice')")


def names(connection):
    return [row[0] for row in run(connection, "SELECT name FROM shop_tag ORDER BY id")]


def test_an_inner_block_that_fails_leaves_the_outer_one_as_it_was(duck):
    tags = Tag.objects.using(duck.alias)
    with transaction.atomic(duck.alias):
        first = tags.create(name="first")
        with undone(duck, IntegrityError):
            tags.create(name="second")
            tags.filter(pk=first.pk).update(name="changed")
            tags.create(name="second")
        assert names(duck) == ["first"]
        tags.create(name="third")
    assert names(duck) == ["first", "third"]


def test_blocks_nest_as_deep_as_one_likes(duck):
    tags = Tag.objects.using(duck.alias)

    class Stop(Exception):
        pass

    with transaction.atomic(duck.alias):
        tags.create(name="1")
        with transaction.atomic(duck.alias):
            tags.create(name="2")
            with undone(duck, Stop):
                tags.create(name="3")
                with transaction.atomic(duck.alias):
                    tags.create(name="4")
                raise Stop
            assert names(duck) == ["1", "2"]
            fail(duck)
        with undone(duck, Stop):
            tags.all().delete()
            raise Stop
    assert names(duck) == ["1", "2"]


def test_a_rollback_of_everything_forgets_what_was_replayed(duck):
    with undone(duck, ZeroDivisionError):
        Tag.objects.using(duck.alias).create(name="first")
        fail(duck)
        raise ZeroDivisionError
    assert names(duck) == []
    with transaction.atomic(duck.alias):
        fail(duck)
        Tag.objects.using(duck.alias).create(name="later")
    assert names(duck) == ["later"]


def test_get_or_create_survives_a_race_lost_inside_a_transaction(duck):
    tags = Tag.objects.using(duck.alias)
    with transaction.atomic(duck.alias):
        tags.create(name="mine")
        fail(duck)
        assert tags.get_or_create(name="mine")[1] is False
        assert tags.update_or_create(name="other", defaults={"name": "yours"})[1] is True
    assert names(duck) == ["mine", "yours"]


def test_savepoints_can_be_set_by_hand(duck):
    tags = Tag.objects.using(duck.alias)
    with transaction.atomic(duck.alias):
        tags.create(name="kept")
        point = savepoint_create(duck.alias)
        tags.create(name="gone")
        transaction.savepoint_rollback(point, duck.alias)
        tags.create(name="again")
        transaction.savepoint_rollback(point, duck.alias)
        transaction.savepoint_commit(point, duck.alias)
        with pytest.raises(OperationalError, match="no savepoint"):
            transaction.savepoint_rollback(point, duck.alias)
    assert names(duck) == ["kept"]


def test_on_commit_runs_only_for_blocks_that_stayed(duck, django_capture_on_commit_callbacks):
    ran = []
    with transaction.atomic(duck.alias):
        transaction.on_commit(lambda: ran.append("outer"), duck.alias)
        Tag.objects.using(duck.alias).create(name="first")
        with undone(duck, ZeroDivisionError):
            transaction.on_commit(lambda: ran.append("inner"), duck.alias)
            raise ZeroDivisionError
        assert ran == []
    assert ran == ["outer"]


class Undo(Exception):
    pass


def undo(really):
    if really:
        raise Undo


STEPS = st.recursive(
    st.tuples(st.sampled_from(["create", "rename", "delete", "ignore", "fail"]), st.integers(0, 5)),
    lambda steps: st.tuples(st.just("block"), st.lists(steps, max_size=5), st.booleans()),
    max_leaves=20,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEPS, max_size=8))
def test_any_nesting_of_blocks_leaves_what_a_dictionary_would(duck, steps):
    """Rows and keys after each step are those of a dictionary that is copied at each block."""
    tags = Tag.objects.using(duck.alias)
    tags.all().delete()

    def rows():
        return dict(tags.values_list("name", "pk"))

    def take(step, known):
        if step[0] == "block":
            inner = dict(known)
            try:
                with transaction.atomic(duck.alias):
                    for each in step[1]:
                        inner = take(each, inner)
                    undo(step[2])
            except Undo:
                inner = known
        else:
            inner = dict(known)
            act, name = step[0], f"tag {step[1]}"
            if act == "create" and name not in inner:
                inner[name] = tags.create(name=name).pk
            elif act == "rename" and name in inner:
                tags.filter(name=name).update(name=f"{name}!{inner[name]}")
                key = inner.pop(name)
                inner[f"{name}!{key}"] = key
            elif act == "delete" and inner.pop(name, None):
                tags.filter(name=name).delete()
            elif act == "ignore":
                tags.bulk_create([Tag(name=name), Tag(name="other")], ignore_conflicts=True)
                drawn = rows()
                inner = {each: inner.get(each, drawn[each]) for each in {*inner, name, "other"}}
            elif act == "fail":
                fail(duck)
        assert rows() == inner
        return inner

    with transaction.atomic(duck.alias):
        known: dict = {}
        for step in steps:
            known = take(step, known)
    assert rows() == known


# What a replay must give again.


def test_keys_stay_what_the_caller_was_told(duck):
    tags = Tag.objects.using(duck.alias)
    with transaction.atomic(duck.alias):
        told = {}
        for number in range(4):
            told[f"t{number}"] = tags.create(name=f"t{number}").pk
            fail(duck)
            with undone(duck, ZeroDivisionError):
                tags.create(name="lost")
                raise ZeroDivisionError
        many = tags.bulk_create([Tag(name=f"many{n}") for n in range(100)])
        told |= {tag.name: tag.pk for tag in many}
        fail(duck)
        assert dict(tags.values_list("name", "pk")) == told
    assert dict(tags.values_list("name", "pk")) == told
    assert tags.create(name="next").pk > max(told.values())


def test_keys_nobody_was_told_stay_too(duck):
    """Keys drawn for rows in conflict leave gaps, which a replay must leave as well."""
    tags = Tag.objects.using(duck.alias)
    with transaction.atomic(duck.alias):
        tags.create(name="b")
        tags.bulk_create([Tag(name=name) for name in "abcb"], ignore_conflicts=True)
        tags.bulk_create([Tag(name=f"n{n}") for n in range(50)], ignore_conflicts=True)
        run(duck, "INSERT INTO shop_tag (name) SELECT 'raw' || n FROM range(3) r(n)")
        assert run(duck, "INSERT INTO shop_tag (name) VALUES ('x') RETURNING name") == [("x",)]
        merged = (
            "MERGE INTO shop_tag USING (VALUES ('x'), ('y')) AS u(name) ON u.name = shop_tag.name "
            "WHEN NOT MATCHED THEN INSERT (name) VALUES (u.name)"
        )
        assert run(duck, merged) == 1
        before = dict(tags.values_list("name", "pk"))
        fail(duck)
        assert dict(tags.values_list("name", "pk")) == before
        tags.create(name="after")
    assert tags.count() == len(before) + 1


def test_a_transaction_with_savepoints_draws_no_key_more(duck):
    tags = Tag.objects.using(duck.alias)
    with transaction.atomic(duck.alias):
        tags.bulk_create([Tag(name="a")], ignore_conflicts=True)
        tags.bulk_create([Tag(name="b")], ignore_conflicts=True)
        assert tags.create(name="c").pk == 3
    assert dict(tags.values_list("name", "pk")) == {"a": 1, "b": 2, "c": 3}


def test_keys_stay_after_a_sequence_was_reset_to_its_table(duck):
    """As `loaddata` does it; DuckDB shows the last value only where it was set as used."""
    tags = Tag.objects.using(duck.alias)
    for number in range(3):
        tags.create(pk=number + 10, name=f"fixture {number}")
    (reset,) = duck.ops.sequence_reset_sql(no_style(), [Tag])
    run(duck, reset)
    with transaction.atomic(duck.alias):
        tags.bulk_create([Tag(name="fixture 0"), Tag(name="new")], ignore_conflicts=True)
        before = dict(tags.values_list("name", "pk"))
        fail(duck)
        assert dict(tags.values_list("name", "pk")) == before
    assert before["new"] == 14


def test_keys_stay_while_another_transaction_draws_from_the_same_sequence(duck):
    tags = Tag.objects.using(duck.alias)

    def elsewhere():
        for number in range(5):
            tags.create(name=f"other{number}")
        connections[duck.alias].close()

    with transaction.atomic(duck.alias):
        first = tags.create(name="first").pk
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        second = tags.create(name="second").pk
        fail(duck)
        assert dict(tags.filter(name__in=["first", "second"]).values_list("name", "pk")) == {
            "first": first,
            "second": second,
        }
    assert tags.count() == 7


def test_a_sequence_made_in_the_same_transaction_goes_on_where_it_was(duck):
    with transaction.atomic(duck.alias):
        run(duck, "CREATE SEQUENCE s; CREATE TABLE made (id INTEGER DEFAULT nextval('s'), n INT)")
        run(duck, "INSERT INTO made (n) VALUES (1)")
        run(duck, "SELECT nextval('s')")
        run(duck, "INSERT INTO made (n) VALUES (2)")
        fail(duck)
        run(duck, "INSERT INTO made (n) VALUES (3)")
    assert run(duck, "SELECT id FROM made ORDER BY n") == [(1,), (3,), (4,)]


def test_the_transactions_time_is_told_again(duck):
    run(duck, "CREATE TABLE seen (id INTEGER, moment TIMESTAMP DEFAULT now(), day DATE)")
    with transaction.atomic(duck.alias):
        run(duck, "INSERT INTO seen (id, day) VALUES (1, current_date)")
        run(duck, "INSERT INTO seen (id, moment) VALUES (2, CURRENT_TIMESTAMP)")
        Order.objects.using(duck.alias).create(customer_id=1, total=1, placed_at=Now())
        sql = "SELECT moment FROM seen UNION ALL SELECT placed_at FROM shop_order ORDER BY 1"
        before = run(duck, sql)
        fail(duck)
        assert run(duck, sql) == before
        with undone(duck, ZeroDivisionError):
            run(duck, "INSERT INTO seen (id) VALUES (4)")
            raise ZeroDivisionError
        later = run(duck, "SELECT now() > %s", [before[0][0].replace(tzinfo=UTC)])
    assert later == [(True,)], "the macro that stopped the clock is gone"
    assert run(duck, sql) == before


def test_tables_temporary_tables_and_arrow_are_there_again(duck):
    rows = pyarrow.table({"n": [1, 2, 3]})
    with transaction.atomic(duck.alias):
        run(duck, "CREATE TABLE made (n INTEGER)")
        run(duck, "CREATE TEMP TABLE scratch AS SELECT 7 AS n")
        duck.connection.execute("INSERT INTO made SELECT n FROM given", arrow={"given": rows})
        with undone(duck, ZeroDivisionError):
            run(duck, "DROP TABLE made")
            run(duck, "ALTER TABLE scratch ADD COLUMN m INTEGER")
            raise ZeroDivisionError
        fail(duck)
        run(duck, "INSERT INTO made SELECT n FROM scratch")
    assert run(duck, "SELECT n FROM made ORDER BY n") == [(1,), (2,), (3,), (7,)]
    assert run(duck, "SELECT * FROM scratch") == [(7,)]


def test_a_migration_in_one_transaction_survives_an_error_that_was_caught(duck):
    class Made(models.Model):  # noqa: DJ008
        name = models.CharField(max_length=10, unique=True)

        class Meta:
            app_label = "made"

    with duck.schema_editor(atomic=True) as editor:
        editor.create_model(Made)
        Made.objects.using(duck.alias).create(name="one")
        fail(duck)
        field = models.IntegerField(default=5)
        field.set_attributes_from_name("size")
        editor.add_field(Made, field)
        fail(duck)
    assert run(duck, "SELECT id, name, size FROM made_made") == [(1, "one", 5)]
    run(duck, "INSERT INTO made_made (name, size) VALUES ('two', 6)")
    assert run(duck, "SELECT id FROM made_made WHERE size = 6") == [(2,)]


def test_rows_being_read_stay_readable(duck):
    Tag.objects.using(duck.alias).bulk_create([Tag(name=str(n)) for n in range(5_000)])
    with transaction.atomic(duck.alias):
        rows = Tag.objects.using(duck.alias).iterator(chunk_size=100)
        next(rows)
        Tag.objects.using(duck.alias).create(name="new")
        fail(duck)
        assert sum(1 for _ in rows) == 4_999


# What is refused.


def test_a_function_that_gives_another_value_each_time_is_refused_by_name(duck):
    with undone(duck, SavepointLost, r"random\(\)"):
        run(duck, "UPDATE shop_tag SET name = CAST(random() AS VARCHAR)")
        run(duck, "CREATE TABLE made (n DOUBLE, u UUID DEFAULT uuid())")
        fail(duck)
    with undone(duck, SavepointLost, r"uuid\(\)"):
        run(duck, "CREATE TABLE made (n DOUBLE, u UUID DEFAULT uuid())")
        run(duck, "INSERT INTO made VALUES (1, 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6')")
        fail(duck)
        run(duck, "INSERT INTO made (n) VALUES (1)")
        fail(duck)


def test_a_statement_whose_effect_is_not_in_its_text_is_refused_by_name(duck, alias, tmp_path):
    run(duck, "PREPARE prepared AS INSERT INTO shop_tag (name) VALUES ($1)")
    with undone(duck, SavepointLost, r"uses EXECUTE"):
        run(duck, "EXECUTE prepared('a')")
        fail(duck)
    rows = tmp_path / "rows.csv"
    rows.write_text("name\nb\n")
    reading = alias(external=[str(rows)])
    with reading.schema_editor() as editor:
        editor.create_model(Tag)
    with undone(reading, SavepointLost, r"RETURNING id"):
        run(reading, f"COPY shop_tag (name) FROM '{rows}'")
        fail(reading)


def test_what_another_transaction_changed_in_between_is_noticed(duck):
    """Only what the statement before the savepoint found counts, not what was read."""
    run(duck, "CREATE TABLE stock (n INTEGER)")
    run(duck, "INSERT INTO stock VALUES (1), (2)")

    def elsewhere():
        with connections[duck.alias].cursor() as cursor:
            cursor.execute("INSERT INTO stock VALUES (3)")
        connections[duck.alias].close()

    with undone(duck, SavepointLost, r"3 rows, the first time 2.*run the transaction again"):
        run(duck, "INSERT INTO stock SELECT n + 10 FROM stock")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        fail(duck)
    assert run(duck, "SELECT n FROM stock ORDER BY n") == [(1,), (2,), (3,)]


def test_after_a_lost_savepoint_nothing_of_the_transaction_is_written(duck):
    tags = Tag.objects.using(duck.alias)
    with undone(duck, TransactionManagementError) as raised:
        run(duck, "INSERT INTO shop_tag (name) VALUES (CAST(uuid() AS VARCHAR))")
        fail(duck)
        tags.create(name="later")
    assert isinstance(raised.value.__cause__, SavepointLost)
    assert names(duck) == []
    with transaction.atomic(duck.alias):
        tags.create(name="well")
    assert names(duck) == ["well"]


def test_a_lost_savepoint_by_hand_lets_nothing_be_committed(duck):
    duck.set_autocommit(False)
    try:
        run(duck, "INSERT INTO shop_tag (name) VALUES (CAST(uuid() AS VARCHAR))")
        point = savepoint_create(duck.alias)
        run(duck, "INSERT INTO shop_tag (name) VALUES ('a')")
        with pytest.raises(SavepointLost):
            transaction.savepoint_rollback(point, duck.alias)
        with pytest.raises(SavepointLost):
            run(duck, "INSERT INTO shop_tag (name) VALUES ('b')")
        with pytest.raises(SavepointLost):
            transaction.commit(duck.alias)
        run(duck, "INSERT INTO shop_tag (name) VALUES ('c')")
        transaction.commit(duck.alias)
    finally:
        duck.rollback()
        duck.set_autocommit(True)
    assert names(duck) == ["c"]


def test_an_error_of_ones_own_is_not_hidden_by_a_lost_savepoint(duck):
    with undone(duck, KeyError):
        run(duck, "INSERT INTO shop_tag (name) VALUES (CAST(uuid() AS VARCHAR))")
        fail(duck)
        raise KeyError
    try:
        int("no number")
    except ValueError:
        with undone(duck, SavepointLost):
            run(duck, "INSERT INTO shop_tag (name) VALUES (CAST(uuid() AS VARCHAR))")
            fail(duck)


# The limit.


def test_beyond_its_limit_a_transaction_has_no_savepoints(alias):
    connection = alias(savepoint_bytes=20_000)
    run(connection, "CREATE TABLE shop_tag (id INTEGER PRIMARY KEY, name VARCHAR)")
    with undone(connection, SavepointLost, r"more than 20_000 bytes.*savepoint_bytes"):
        for number in range(200):
            run(connection, "INSERT INTO shop_tag VALUES (%s, 'x')", [number])
        fail(connection)
    assert names(connection) == []
    with transaction.atomic(connection.alias):
        with undone(connection, ZeroDivisionError):
            for number in range(200):
                run(connection, "INSERT INTO shop_tag VALUES (%s, 'x')", [number])
            raise ZeroDivisionError
        run(connection, "INSERT INTO shop_tag VALUES (1, 'whole')")
        with transaction.atomic(connection.alias):
            run(connection, "INSERT INTO shop_tag VALUES (2, 'stays')")
    assert names(connection) == ["whole", "stays"]


def test_the_journal_ends_with_the_transaction(duck):
    with transaction.atomic(duck.alias):
        Tag.objects.using(duck.alias).bulk_create([Tag(name=str(n)) for n in range(100)])
        assert duck.connection._journal.size_bytes > 1_000
    assert (duck.connection._journal.size_bytes, duck.connection._journal.entries) == (0, [])


def test_without_savepoints_the_outer_block_goes_with_the_inner_one(alias):
    connection = alias(savepoint_bytes=0)
    assert connection.features.uses_savepoints is False
    run(connection, "CREATE TABLE shop_tag (id INTEGER PRIMARY KEY, name VARCHAR)")
    with transaction.atomic(connection.alias):
        run(connection, "INSERT INTO shop_tag VALUES (1, 'x')")
        fail(connection)
    assert names(connection) == []


@pytest.mark.parametrize("wrong", [-1, "64 MB", True])
def test_a_limit_that_is_no_number_of_bytes_is_refused(alias, wrong):
    with pytest.raises(ImproperlyConfigured, match="number of bytes"):
        alias(savepoint_bytes=wrong).ensure_connection()


def test_a_transaction_begun_on_the_driver_keeps_no_journal(duck):
    connection = duck.connection
    connection.begin()
    connection.execute("INSERT INTO shop_tag (name) VALUES ('a')")
    assert connection._journal.entries == []
    with pytest.raises(duckdb.ParserException):
        connection.execute("SAVEPOINT a")
    connection.rollback()


# Other processes.


@pytest.fixture
def shared(alias, tmp_path):
    """Return (owner, connection): this process is the client of another that owns the file."""
    path = tmp_path / "store.duckdb"
    owner = Child(path)
    owner("run", "CREATE SEQUENCE tag_seq")
    owner(
        "run",
        "CREATE TABLE shop_tag (id INTEGER DEFAULT nextval('tag_seq') PRIMARY KEY, name VARCHAR)",
    )
    connection = alias(path)
    assert not ownership.owns(str(path))
    yield owner, connection
    owner.process.kill()
    owner.end()


def test_a_client_of_another_process_has_savepoints_too(shared):
    owner, connection = shared
    with transaction.atomic(connection.alias):
        run(connection, "INSERT INTO shop_tag (name) VALUES ('first')")
        owner("run", "INSERT INTO shop_tag (name) VALUES ('owner')")
        run(connection, "INSERT INTO shop_tag (name) SELECT 'n' || n FROM range(5000) r(n)")
        before = run(connection, "SELECT * FROM shop_tag WHERE name <> 'owner' ORDER BY id")
        fail(connection)
        after = run(connection, "SELECT * FROM shop_tag WHERE name <> 'owner' ORDER BY id")
    assert after == before
    assert len(after) == 5_001
    assert owner("run", "SELECT count(*) FROM shop_tag") == [[5_002]]


def test_keys_given_before_a_crash_are_not_given_again(shared):
    """A replay inserts keys without drawing them; the WAL must know of them all the same."""
    owner, connection = shared
    with transaction.atomic(connection.alias):
        run(connection, "INSERT INTO shop_tag (name) SELECT 'n' || n FROM range(50) r(n)")
        fail(connection)
    owner.kill()
    run(connection, "INSERT INTO shop_tag (name) VALUES ('later')")
    later = run(connection, "SELECT id FROM shop_tag WHERE name = 'later'")[0][0]
    assert later > run(connection, "SELECT max(id) FROM shop_tag WHERE name <> 'later'")[0][0]


def test_an_owner_that_dies_takes_the_whole_transaction_not_its_first_half(shared):
    owner, connection = shared
    with undone(connection, StoreGone):
        run(connection, "INSERT INTO shop_tag (name) VALUES ('first')")
        with undone(connection, StoreGone):
            owner.kill()
            run(connection, "INSERT INTO shop_tag (name) VALUES ('second')")
    assert names(connection) == []
    connection.set_autocommit(False)
    run(connection, "INSERT INTO shop_tag (name) VALUES ('first')")
    ownership.release(connection.path)
    with pytest.raises(StoreGone):
        run(connection, "SELECT 1")
    with pytest.raises(StoreGone):
        run(connection, "INSERT INTO shop_tag (name) VALUES ('second')")
    connection.rollback()
    connection.set_autocommit(True)
    assert names(connection) == []


def test_no_update_is_lost_between_rollback_and_replay(shared):
    """
    Two threads count up one row, each rolling back to a savepoint every time.

    Between DuckDB's rollback and the new snapshot the other could have
    committed its own count; the replay would have overwritten it.
    """
    _, connection = shared
    run(connection, "CREATE TABLE counted (n INTEGER)")
    run(connection, "INSERT INTO counted VALUES (0)")
    done = []

    def count():
        mine = connections[connection.alias]
        while len(done) < 60:
            try:
                with transaction.atomic(mine.alias):
                    number = run(mine, "SELECT n FROM counted")[0][0]
                    run(mine, "UPDATE counted SET n = %s", [number + 1])
                    fail(mine)
            except OperationalError:
                continue
            done.append(number)
        mine.close()

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run(connection, "SELECT n FROM counted") == [(len(done),)]


def test_a_rollback_to_a_savepoint_waits_for_a_statement_that_writes(duck):
    """Nobody else commits between the rollback and the new snapshot."""
    connection = duck.connection
    other = ownership.connect(duck.place)
    instance = connection.session.instance
    with transaction.atomic(duck.alias):
        Tag.objects.using(duck.alias).create(name="first")
        other.session.writing = True
        other.session.running = True
        thread = threading.Thread(
            target=lambda: (wait_until(lambda: instance._restarting), instance.leave(other.session))
        )
        thread.start()
        fail(duck)
        thread.join()
        assert not instance._restarting
    other.close()
    assert names(duck) == ["first"]
