"""`manage.py dbshell` on a DuckDB database, and what `loaddata` finds in one."""

import io
import json
import sys

import pytest
from django.core.management import CommandError, call_command
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connections

from levada.stores.duckdb import client
from tests.integration.duckdb_child import Child


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def lake(tmp_path, django_db_blocker):
    """An alias `lake` on a file with a table of two rows."""
    with django_db_blocker.unblock():
        connections.databases["lake"] = connections.configure_settings(
            {
                DEFAULT_DB_ALIAS: {},
                "lake": {"ENGINE": "levada.stores.duckdb", "NAME": tmp_path / "lake.duckdb"},
            }
        )["lake"]
        connection = connections["lake"]
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE pond (id INTEGER, name VARCHAR)")
            cursor.execute("INSERT INTO pond VALUES (1, 'a;b'), (2, NULL)")
        yield connection
        connection.close()
        connection.creation._destroy_test_db(str(tmp_path / "lake.duckdb"), 0)
        del connections["lake"], connections.databases["lake"]


def typed(monkeypatch, text):
    """Let `text` be typed at a terminal; returns what the terminal shows."""
    lines, screen = iter(text.splitlines()), Terminal()

    def answer(prompt):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", screen)
    call_command("dbshell", database="lake")
    return screen.getvalue()


def test_a_command_writes_csv_into_a_pipe(lake, capsys):
    call_command(
        "dbshell", "--", "-c", "SELECT * FROM pond; SELECT 'x, \"y\"' AS z", database="lake"
    )
    assert capsys.readouterr().out == 'id,name\n1,a;b\n2,\nz\n"x, ""y"""\n'


def test_a_script_comes_from_a_pipe_and_ends_at_its_first_error(lake, capsys, monkeypatch):
    script = "-- ;\nINSERT INTO pond VALUES (3, ';');\nSELECT absent FROM pond; DROP TABLE pond"
    monkeypatch.setattr(sys, "stdin", io.StringIO(script))
    with pytest.raises(CommandError, match="absent"):
        call_command("dbshell", database="lake")
    call_command("dbshell", "--", "-c", "SELECT count(*) AS n FROM pond", database="lake")
    assert capsys.readouterr().out == "n\n3\n"


def test_a_terminal_shows_tables_and_goes_on_after_an_error(lake, monkeypatch):
    shown = typed(
        monkeypatch,
        "SELECT *\nFROM pond -- no end;\nORDER BY id;\nSELECT nothing;\n.tables\n.schema pond\n"
        "BEGIN;\nDELETE FROM pond;\nROLLBACK;\nSELECT count(*) AS n FROM pond;\n",
    )
    assert "id  name\n--  ----\n1   a;b\n2   NULL\n(2 rows)\n" in shown
    assert '"nothing" was not found' in shown
    assert 'CREATE TABLE pond(id INTEGER, "name" VARCHAR);\n' in shown
    assert "n\n-\n2\n(1 rows)\n" in shown


def test_a_terminal_does_not_show_all_of_a_million_rows(lake, monkeypatch):
    shown = typed(monkeypatch, "SELECT * FROM range(1000000);\n.quit\nSELECT 'not run';")
    assert shown.endswith("999\n(1,000 rows, of more)\n")


def test_the_shell_works_while_another_process_has_the_file_open(lake, capsys):
    path = lake.settings_dict["NAME"]
    lake.close()
    lake.creation._destroy_test_db(str(path), 0)
    owner = Child(str(path))
    try:
        owner("run", "CREATE TABLE theirs AS SELECT 5 AS a")
        call_command("dbshell", "--", "-c", "SELECT a FROM theirs", database="lake")
        assert owner("owns")
    finally:
        lake.close()
        owner.end()
    assert capsys.readouterr().out == "a\n5\n"


def test_another_parameter_is_refused(lake):
    with pytest.raises(CommandError, match="takes -c SQL, and not '-readonly'"):
        call_command("dbshell", "--", "-readonly", database="lake")


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("SELECT 1;", True), ("SELECT 1; -- why", True), ("SELECT 1 -- ;", False),
        ("SELECT ';", False), ("SELECT ';';", True), ('SELECT ";"', False),
        ("SELECT $a$ ; $a$", False), ("/* ; */", False), (" \n", False),
    ],
)  # fmt: skip
def test_a_statement_ends_with_a_semicolon_of_its_own(text, complete):
    assert client.is_complete(text) is complete


@pytest.fixture
def library(lake):
    """The tables of `django.contrib` in `lake`."""
    call_command("migrate", database="lake", verbosity=0)
    return lake


def fixture(tmp_path, *objects):
    path = tmp_path / "objects.json"
    path.write_text(json.dumps(objects))
    return str(path)


PERMISSION = {
    "model": "auth.permission",
    "pk": 901,
    "fields": {"name": "n", "codename": "c", "content_type": 902},
}
CONTENT_TYPE = {
    "model": "contenttypes.contenttype",
    "pk": 902,
    "fields": {"app_label": "a", "model": "m"},
}


def test_loaddata_takes_a_reference_to_a_row_that_comes_later(library, tmp_path):
    call_command(
        "loaddata", fixture(tmp_path, PERMISSION, CONTENT_TYPE), database="lake", verbosity=0
    )
    with library.cursor() as cursor:
        cursor.execute("SELECT nextval('auth_permission_id_seq')")
        assert cursor.fetchone() == (902,)


def test_loaddata_refuses_a_reference_to_a_row_that_is_not_there(library, tmp_path):
    with pytest.raises(IntegrityError, match=r"auth_permission.content_type_id contains .* 902"):
        call_command("loaddata", fixture(tmp_path, PERMISSION), database="lake", verbosity=0)
    with library.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM auth_permission WHERE id = 901")
        assert cursor.fetchone() == (0,)
    library.check_constraints()
