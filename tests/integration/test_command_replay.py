"""Replay mends a store without its readers seeing an old value, and moves a group back."""

import pytest

from .projects import Project

WRITE = """
from tests.shop.models import Customer
for n in range(1, 11): Customer.objects.create(id=n, name=f"name {n}")
Customer.objects.filter(id=1).update(name="second name")
Customer.objects.filter(id=10).delete()
"""
CORRUPT = """
from levada.stores import open_store
store = open_store("analytics")
store.connection.execute("DELETE FROM shop_customer WHERE id IN (2, 3)")
store.connection.execute("UPDATE shop_customer SET name = 'wrong' WHERE id = 1")
store.close()
"""
POSITION = """
from levada.stores import open_store
store = open_store("analytics"); print(store.position()); store.close()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("replay"))
    try:
        made.manage("migrate", "--verbosity", "0")
        made.levada("verify", "analytics")
        made.python(WRITE)
        made.levada("verify", "analytics")
        yield made
    finally:
        made.close()


def test_a_corrupted_store_is_made_whole_at_the_position_it_has(project):
    before = project.python(POSITION)
    project.python(CORRUPT)
    said = project.levada("verify", "analytics", exit_status=1)
    assert "changed id=1: name is 'second name' in the source, 'wrong' in the store" in said
    assert "missing id=2" in said
    said = project.levada("replay", "analytics")
    assert "applied 12 records again" in said
    assert project.python(POSITION) == before
    project.levada("verify", "analytics")


LETTER = """
from levada.models import DeadLetter
DeadLetter.objects.create(id=5, consumer="analytics", epoch="e", topic="changes", offset=1,
    label="shop.Customer", key="[2]", record="{}", reason="no space was left")
from levada.stores import open_store
store = open_store("analytics")
store.connection.execute("DELETE FROM shop_customer WHERE id = 2")
store.close()
"""


def test_a_dead_letter_is_retried_where_no_keeper_runs(project):
    project.python(LETTER)
    assert "missing id=2" in project.levada("verify", "analytics", exit_status=1)
    assert "5: retried" in project.levada("dead-letters", "retry", "5")
    project.levada("verify", "analytics")


def test_a_replay_from_an_offset_applies_only_what_came_after(project):
    assert "applied 2 records again" in project.levada("replay", "analytics", "--from", "10")
    project.levada("verify", "analytics")


def test_places_that_do_not_exist_are_refused(project):
    said = project.levada("replay", "analytics", "--from", "99", exit_status=1)
    assert "beyond the log, which ends at 12" in said
    said = project.levada("replay", "analytics", "--from", "other:changes:3", exit_status=1)
    assert "does not belong to" in said
    said = project.levada("replay", "analytics", "--from", "yesterday", exit_status=1)
    assert "is not a position" in said


def test_a_consumer_that_does_not_exist_is_refused_with_those_that_do(project):
    said = project.levada("replay", "mail", exit_status=1)
    assert "'mail' is neither a store nor a consumer group. Stores: analytics" in said
