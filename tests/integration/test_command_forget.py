"""What a person asked to be forgotten is in no image of the log and in no dead letter."""

import json
import sqlite3
from contextlib import closing

import pytest

from .projects import Project

SECRET = "ana@example.org"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("forget"))
    try:
        made.manage("migrate", "--verbosity", "0")
        yield made
    finally:
        made.close()


def written_images(project):
    with closing(sqlite3.connect(project.log)) as log:
        return log.execute("SELECT label, key, op, before, after, context FROM record").fetchall()


def test_forget_blanks_every_image_of_the_row_and_no_other(project):
    project.python(
        "from tests.shop.models import Customer\n"
        f"for n in (1, 2): Customer.objects.create(id=n, name='Ana', email='{SECRET}' if n == 1"
        " else 'bea@example.org')\n"
        "Customer.objects.filter(id=1).update(country='PT')\n"
        "from levada.models import DeadLetter\n"
        "DeadLetter.objects.create(consumer='analytics', epoch='e', topic='changes', offset=1,"
        f" label='shop.Customer', key='[1]', reason='{SECRET} is too long',"
        f' record=\'{{"offset": 1, "after": "{SECRET}", "email": "{SECRET}"}}\')'
    )
    said = project.levada("forget", "shop.Customer", "1", exit_status=1)
    assert "is still in 'default'. Delete it first" in said

    project.python("from tests.shop.models import Customer; Customer.objects.filter(id=1).delete()")
    said = project.levada("forget", "shop.customer", "1")

    assert "blanked 3 records of the log and 1 dead letters" in said
    images = written_images(project)
    assert [row[2:] for row in images if row[1] == "[1]"] == [
        (op, None, None, None) for op in ("c", "u", "d")
    ]
    assert any("bea@example.org" in str(row) for row in images if row[1] == "[2]")
    for path in project.path.glob("levada-log.sqlite3*"):
        assert SECRET.encode() not in path.read_bytes(), path.name
    letter = project.python(
        "from levada.models import DeadLetter\n"
        "import json; l = DeadLetter.objects.get()\n"
        "print(json.dumps([l.state, l.reason, l.record]))"
    )
    assert json.loads(letter) == ["dropped", "Forgotten.", '{"offset": 1}']
    project.levada("verify", "analytics")


def test_forgetting_an_inherited_row_reaches_its_parents_table(project):
    project.python(
        "from tests.shop.models import Book\n"
        "Book.objects.create(id=7, name='Secret title', isbn='1'); Book.objects.all().delete()"
    )
    said = project.levada("forget", "shop.Book", "7")
    assert "blanked 4 records" in said
    assert "Secret title" not in str(written_images(project))


def test_a_composite_key_is_given_value_by_value(project):
    project.python(
        "from tests.shop.models import Seat\n"
        "Seat.objects.create(row='Á', number=3); Seat.objects.all().delete()"
    )
    said = project.levada("forget", "shop.Seat", "Á", exit_status=1)
    assert "has 2 values (row, number), not 1" in said
    assert "blanked 2 records" in project.levada("forget", "shop.Seat", "Á", "3")


def test_what_is_no_key_or_no_replicated_model_is_refused(project):
    assert "is no key of shop.Customer" in project.levada(
        "forget", "shop.Customer", "one", exit_status=1
    )
    said = project.levada("forget", "shop.Custmer", "1", exit_status=1)
    assert "Did you mean 'shop.Customer'?" in said
