"""DuckDB's connections in threads, in async code, and kept between requests."""

import asyncio
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import sync_to_async
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    OperationalError,
    connections,
    transaction,
)

from levada.stores.duckdb import ownership
from tests.integration.duckdb_child import Child
from tests.shop.models import Tag


@pytest.fixture
def alias(django_db_blocker):
    """Make an alias for a database in memory or in a file, with settings."""
    made = []

    def make(name=None, **settings):
        alias = f"duck{len(made)}"
        engine = {"ENGINE": "levada.stores.duckdb", "NAME": name or f":memory:{uuid.uuid4().hex}"}
        connections.databases[alias] = connections.configure_settings(
            {DEFAULT_DB_ALIAS: {}, alias: {**engine, **settings}}
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
    connection = alias()
    with connection.schema_editor() as editor:
        editor.create_model(Tag)
    return connection


def in_a_thread(work):
    """Run `work` in a thread of its own; returns what it returns, raises what it raises."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


def test_threads_have_connections_of_their_own_to_one_memory(duck):
    def write(number):
        with transaction.atomic(duck.alias):
            Tag.objects.using(duck.alias).create(name=f"tag {number}")
        mine = connections[duck.alias]
        mine.close()
        return id(mine)

    with ThreadPoolExecutor(4) as threads:
        others = set(threads.map(write, range(40)))
    assert id(duck) not in others
    assert Tag.objects.using(duck.alias).count() == 40


def test_a_threads_transaction_is_unseen_by_others_until_it_is_committed(duck):
    def count():
        found = Tag.objects.using(duck.alias).count()
        connections[duck.alias].close()
        return found

    with transaction.atomic(duck.alias):
        Tag.objects.using(duck.alias).create(name="mine")
        assert in_a_thread(count) == 0
    assert in_a_thread(count) == 1


def test_a_connection_of_another_thread_is_refused_unless_it_is_shared(duck):
    def use():
        with duck.cursor() as cursor:
            return cursor.execute("SELECT 1").fetchone()

    with pytest.raises(DatabaseError, match="created in a thread"):
        in_a_thread(use)
    duck.inc_thread_sharing()
    try:
        assert in_a_thread(use) == (1,)
    finally:
        duck.dec_thread_sharing()


def test_threads_that_share_a_connection_get_their_own_rows(duck):
    """As under a LiveServerTestCase; without turns one thread's rows went to another."""
    duck.inc_thread_sharing()

    def read(number):
        wrong = 0
        for _ in range(30):
            with duck.cursor() as cursor:
                cursor.execute("SELECT n, %s FROM range(3000) r(n)", [number])
                first = cursor.fetchmany(10)
                time.sleep(0)
                rows = first + cursor.fetchall()
            wrong += rows != [(n, number) for n in range(3_000)]
        return wrong

    try:
        with transaction.atomic(duck.alias), ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(read, range(4))) == 0
    finally:
        duck.dec_thread_sharing()


def test_threads_that_share_a_connection_share_its_transaction(duck):
    duck.inc_thread_sharing()

    def write():
        with duck.cursor() as cursor:
            cursor.execute("INSERT INTO shop_tag (name) VALUES ('theirs')")

    def undo():
        with transaction.atomic(duck.alias):
            in_a_thread(write)
            assert Tag.objects.using(duck.alias).count() == 2
            raise ZeroDivisionError

    try:
        with transaction.atomic(duck.alias):
            Tag.objects.using(duck.alias).create(name="mine")
            with pytest.raises(ZeroDivisionError):
                undo()
            assert Tag.objects.using(duck.alias).get().name == "mine"
    finally:
        duck.dec_thread_sharing()


def test_the_async_orm_reads_and_writes(duck):
    tags = Tag.objects.using(duck.alias)

    def transfer():
        with transaction.atomic(duck.alias):
            tags.create(name="in a transaction")

    async def main():
        await tags.abulk_create([Tag(name=f"tag {n}") for n in range(100)])
        await sync_to_async(transfer)()
        found, created = await tags.aget_or_create(name="tag 5")
        names = [tag.name async for tag in tags.filter(pk__gt=98).aiterator(chunk_size=1)]
        count = await tags.acount()
        await sync_to_async(lambda: connections[duck.alias].close())()
        return found.pk, created, names, count

    assert asyncio.run(main()) == (6, False, ["tag 98", "tag 99", "in a transaction"], 101)


def test_a_durable_block_may_not_be_an_inner_one(duck):
    def nest():
        with transaction.atomic(duck.alias), transaction.atomic(duck.alias, durable=True):
            pass

    with pytest.raises(RuntimeError, match="durable"):
        nest()
    with transaction.atomic(duck.alias, durable=True):
        Tag.objects.using(duck.alias).create(name="kept")
    assert Tag.objects.using(duck.alias).count() == 1


def test_select_for_update_locks_nothing_but_the_later_of_two_writers_fails(duck):
    tags = Tag.objects.using(duck.alias)
    tags.create(name="one")

    def change():
        try:
            return tags.filter(name="one").update(name="theirs")
        finally:
            connections[duck.alias].close()

    with transaction.atomic(duck.alias):
        tag = tags.select_for_update().get()
        tag.name = "mine"
        tag.save()
        with pytest.raises(OperationalError, match=r"[Cc]onflict"):
            in_a_thread(change)
    assert tags.update_or_create(name="mine", defaults={"name": "ours"})[1] is False
    assert tags.get().name == "ours"


# Connections that are kept.


def test_a_connection_is_closed_after_its_age(alias):
    connection = alias(CONN_MAX_AGE=0)
    connection.ensure_connection()
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is None
    connection = alias(CONN_MAX_AGE=None)
    connection.ensure_connection()
    kept = connection.connection
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is kept


def test_a_kept_connection_survives_the_end_of_the_files_owner(alias, tmp_path):
    path = tmp_path / "store.duckdb"
    owner = Child(path)
    owner("run", "CREATE TABLE t AS SELECT 1 AS a")
    connection = alias(path, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)

    def read():
        with connection.cursor() as cursor:
            return cursor.execute("SELECT a FROM t").fetchall()

    assert read() == [(1,)]
    owner.kill()
    connection.close_if_unusable_or_obsolete()  # as at the beginning of a request
    assert read() == [(1,)]
    assert connection.is_usable()
    owner.end()


def test_a_health_check_leaves_a_result_that_is_being_read(duck):
    Tag.objects.using(duck.alias).bulk_create([Tag(name=str(n)) for n in range(5_000)])
    rows = Tag.objects.using(duck.alias).iterator(chunk_size=10)
    next(rows)
    assert duck.is_usable()
    assert sum(1 for _ in rows) == 4_999


def test_many_threads_begin_at_once(alias, tmp_path):
    """The first opens the file; all others find it opened."""
    connection = alias(tmp_path / "store.duckdb")
    barrier = threading.Barrier(8)

    def use(_):
        barrier.wait()
        mine = connections[connection.alias]
        with mine.cursor() as cursor:
            answer = cursor.execute("SELECT 1").fetchone()
        mine.close()
        return answer

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(use, range(8))) == [(1,)] * 8
