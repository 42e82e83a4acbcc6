"""Leaving is complete: the schema is what it was, and the project's rows are all there."""

import pytest

from .projects import Project

SCHEMA = """
from django.db import connection
QUERIES = {
    "sqlite": ["SELECT type, name, tbl_name, sql FROM sqlite_master"],
    "postgresql": [
        "SELECT n.nspname, c.relname, c.relkind::text, a.attname, a.attnotnull,"
        " format_type(a.atttypid, a.atttypmod), c.reloptions::text"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE n.nspname NOT LIKE 'pg\\\\_%' AND n.nspname <> 'information_schema'",
        "SELECT proname, prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE n.nspname NOT LIKE 'pg\\\\_%' AND n.nspname <> 'information_schema'",
        "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint",
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indexrelid >= 16384",
        "SELECT nspname FROM pg_namespace",
        "SELECT extname FROM pg_extension",
        "SELECT evtname FROM pg_event_trigger",
    ],
}
with connection.cursor() as cursor:
    for query in QUERIES[connection.vendor]:
        cursor.execute(query)
        for row in sorted(cursor.fetchall(), key=repr):
            if not str(row).startswith("('pg_toast"):
                print(row)
"""
MIGRATE_THE_OTHERS = """
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
for app in sorted(MigrationLoader(connection).migrated_apps - {"levada"}):
    call_command("migrate", app, verbosity=0)
"""
MIGRATIONS = """
from django.db.migrations.recorder import MigrationRecorder
print(sorted({m.app for m in MigrationRecorder.Migration.objects.all()}))
"""


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    try:
        made.python(MIGRATE_THE_OTHERS)
        yield made
    finally:
        made.close()


def test_uninstall_leaves_the_schema_and_the_rows_as_they_were(project):
    before, migrations = project.python(SCHEMA), project.python(MIGRATIONS)
    assert "levada" not in before
    project.manage("migrate", "--verbosity", "0")
    assert "levada" in project.python(SCHEMA)
    project.python("from tests.shop.models import Tag; Tag.objects.create(name='x')")
    project.python("from tests.shop.models import Customer; Customer.objects.create(name='Ana')")

    said = project.levada("uninstall", "--no-input")

    assert "shop.Customer" in said
    assert "levada_outbox" in said
    assert "with 1 changes that no store has yet" in said
    assert project.python(SCHEMA) == before
    assert project.python(MIGRATIONS) == migrations
    wrote = "c = Customer.objects.get(); c.name = 'Bea'; c.save(); print(Customer.objects.count())"
    assert project.python(f"from tests.shop.models import Customer; {wrote}") == "1\n"


def test_uninstall_asks_first_and_takes_anything_but_yes_for_no(project):
    project.manage("migrate", "--verbosity", "0")
    before = project.python(SCHEMA)
    said = project.levada("uninstall", input_text="no\n", exit_status=1)
    assert "Nothing was changed" in said
    assert project.python(SCHEMA) == before
    project.levada("uninstall", input_text="yes\n")
    assert "levada" not in project.python(SCHEMA)


def test_uninstall_twice_is_harmless_and_migrate_brings_it_back(project):
    project.manage("migrate", "--verbosity", "0")
    installed = project.python(SCHEMA)
    project.levada("uninstall", "--no-input")
    project.levada("uninstall", "--no-input")
    project.manage("migrate", "--verbosity", "0")
    assert project.python(SCHEMA) == installed


def test_uninstall_refuses_while_a_keeper_works(project):
    project.manage("migrate", "--verbosity", "0")
    keeper = project.keep("--only", "relay")
    said = project.levada("uninstall", "--no-input", exit_status=1)
    assert f"Process {keeper.process.pid} still keeps relay" in said
    assert keeper.stop() == 0
