"""`manage.py test` on DuckDB: in memory and in files, kept, in parallel processes, mirrored."""

import os
import subprocess
import sys

import pytest
from django.db import connections

from levada.stores.duckdb import ownership

SETTINGS = """
import multiprocessing
import os

NAME = os.environ.get("TEST_NAME") or None
multiprocessing.set_start_method(os.environ.get("START_METHOD", "fork"), force=True)
SECRET_KEY = "tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "books"]
DATABASES = {
    "default": {
        "ENGINE": "levada.stores.duckdb",
        "NAME": "unused.duckdb",
        "TEST": {"NAME": NAME},
    },
    "mirror": {
        "ENGINE": "levada.stores.duckdb",
        "NAME": "unused.duckdb",
        "TEST": {"MIRROR": "default"},
    },
}
"""

MODELS = """
from django.db import models


class Book(models.Model):
    title = models.CharField(max_length=50, unique=True)
"""

MIGRATION = """
from django.db import migrations, models


def add(apps, editor):
    apps.get_model("books", "Book").objects.create(title="from the migration")


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            "Book",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("title", models.CharField(max_length=50, unique=True)),
            ],
        ),
        migrations.RunPython(add, migrations.RunPython.noop),
    ]
"""

TESTS = """
import os

from django.db import IntegrityError, connection, connections, transaction
from django.test import TestCase, TransactionTestCase

from books.models import Book


class Base:
    # Django 5.2 finds no serialized contents of a mirror where it spawns.
    databases = {"default"} if os.environ["START_METHOD"] == "spawn" else {"default", "mirror"}

    def check(self):
        with open(os.environ["SEEN"], "a") as seen:
            print(os.getpid(), connection.settings_dict["NAME"], type(self).__name__, file=seen)
        assert Book.objects.get().title == "from the migration"
        added = Book.objects.create(title="added")
        assert added.pk > Book.objects.get(title="from the migration").pk
        try:
            with transaction.atomic():
                Book.objects.create(title="added")
        except IntegrityError:
            pass
        committed = 1 if isinstance(self, TestCase) else 2
        if "mirror" in self.databases:
            assert Book.objects.using("mirror").count() == committed

    def test_one(self):
        self.check()

    def test_two(self):
        self.check()


class Plain(Base, TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.ours = Book.objects.get()


class Also(Base, TestCase):
    pass


class Committing(Base, TransactionTestCase):
    serialized_rollback = True


class AlsoCommitting(Base, TransactionTestCase):
    serialized_rollback = True
"""


ROLLING_BACK = ("books.tests.Plain", "books.tests.Also")
"""A TransactionTestCase empties all tables in the end, on any database."""


class Project:
    def __init__(self, path):
        self.path = path
        self.seen = path / "seen.txt"
        (path / "project_settings.py").write_text(SETTINGS)
        books = path / "books"
        (books / "migrations").mkdir(parents=True)
        for folder in (books, books / "migrations"):
            (folder / "__init__.py").touch()
        (books / "models.py").write_text(MODELS)
        (books / "migrations" / "0001_initial.py").write_text(MIGRATION)
        (books / "tests.py").write_text(TESTS)

    def test(self, *options, name="", start_method="fork", answer=None):
        """Run `manage.py test`; returns what was printed and the lines the tests wrote."""
        self.seen.write_text("")
        ran = subprocess.run(
            [sys.executable, "-m", "django", "test", "--traceback", *options],
            cwd=self.path,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "project_settings",
                "PYTHONPATH": os.pathsep.join(filter(None, [str(self.path), *sys.path])),
                "SEEN": str(self.seen),
                "START_METHOD": start_method,
                "TEST_NAME": str(name),
            },
            input=answer,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0 or answer == "no", ran.stderr + ran.stdout
        return ran.stdout + ran.stderr, [
            line.split() for line in self.seen.read_text().splitlines()
        ]

    def left(self):
        return sorted(path.name for path in self.path.glob("*.duckdb*"))


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_in_memory_nothing_is_left(project):
    printed, seen = project.test()
    assert "Ran 8 tests" in printed
    assert {line[1] for line in seen} == {":memory:default"}
    assert project.left() == []


def test_in_a_file_nothing_is_left_unless_it_is_kept(project):
    name = project.path / "test.duckdb"
    _, seen = project.test(name=name)
    assert {line[1] for line in seen} == {str(name)}
    assert project.left() == []
    printed, _ = project.test("--keepdb", *ROLLING_BACK, name=name)
    assert "Preserving test database" in printed
    assert "test.duckdb" in project.left()
    printed, _ = project.test("--keepdb", "--verbosity", "2", *ROLLING_BACK, name=name)
    assert "No migrations to apply" in printed
    project.test(name=name, answer="no")
    assert "test.duckdb" in project.left()
    project.test(name=name, answer="yes")
    assert project.left() == []


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_parallel_workers_have_databases_of_their_own(project, kind, start_method):
    name = "" if kind == "memory" else project.path / "test.duckdb"
    printed, seen = project.test("--parallel", "2", name=name, start_method=start_method)
    assert "Ran 8 tests" in printed
    if kind == "file":
        clones = {str(project.path / f"test_{number}.duckdb") for number in (1, 2)}
        assert {line[1] for line in seen} <= clones
        assert len({line[0] for line in seen}) == len({line[1] for line in seen})
    assert project.left() == []


def test_clones_are_kept_as_well(project):
    name = project.path / "test.duckdb"
    project.test("--parallel", "2", "--keepdb", *ROLLING_BACK, name=name)
    kept = {"test.duckdb", "test_1.duckdb", "test_2.duckdb"}
    assert kept <= set(project.left())
    printed, _ = project.test("--parallel", "2", "--keepdb", *ROLLING_BACK, name=name)
    assert "Using existing clone" in printed
    project.test("--parallel", "2", "--noinput", name=name)
    assert project.left() == []


def test_a_clone_has_what_another_process_wrote_a_moment_ago(tmp_path, django_db_blocker):
    """The owner of the file holds rows in its WAL; a copy beside it would lack them."""
    from tests.integration.duckdb_child import Child

    path = tmp_path / "test.duckdb"
    owner = Child(path)
    owner("run", "CREATE TABLE t AS SELECT 1 AS a")
    with django_db_blocker.unblock():
        connections.databases["cloned"] = connections.configure_settings(
            {"default": {}, "cloned": {"ENGINE": "levada.stores.duckdb", "NAME": str(path)}}
        )["cloned"]
        connection = connections["cloned"]
        try:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO t VALUES (2)")
            connection.creation.clone_test_db("1", verbosity=0)
            clone = ownership.connect(ownership.Place(str(tmp_path / "test_1.duckdb")))
            assert clone.execute("SELECT sum(a) FROM t").fetchone() == (3,)
            clone.close()
            assert owner("run", "SELECT count(*) FROM t") == [[2]]
            connection.creation.destroy_test_db(None, verbosity=0, suffix="1")
            assert sorted(each.name for each in tmp_path.glob("test_1*")) == []
        finally:
            connection.close()
            del connections["cloned"], connections.databases["cloned"]
    owner.end()
    ownership.release(str(path))
