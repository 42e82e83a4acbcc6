"""Each word of `manage.py levada` does what it says, and says what to type when it cannot."""

import json

import pytest

from .projects import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """One project for the words that change nothing another test here looks at."""
    made = Project(tmp_path_factory.mktemp("words"))
    try:
        made.manage("migrate", "--verbosity", "0")
        yield made
    finally:
        made.close()


def test_status_before_anything_ran_says_what_to_run(project):
    said = project.levada("status", exit_status=1)
    assert "No log yet. Run: manage.py levada run" in said
    assert "Never filled" in said
    assert not (project.path / "analytics.duckdb").exists(), "looking must not create a store"
    assert not project.log.exists()


def test_status_as_json_is_one_object(project):
    found = json.loads(project.levada("status", "--json", exit_status=1))
    assert found["caught_up"] is False
    assert [store["alias"] for store in found["stores"]] == ["analytics"]
    assert found["outbox"]["relay_pid"] is None


def test_an_unknown_store_gets_a_suggestion(project):
    said = project.levada("status", "analytisc", exit_status=1)
    assert "Did you mean 'analytics'?" in said
    assert "Did you mean 'analytics'?" in project.levada("verify", "analytisc", exit_status=2)


def test_an_unknown_table_is_refused_with_the_list(project):
    said = project.levada("verify", "analytics", "--table", "shop.Ordr", exit_status=2)
    assert "Did you mean 'shop.Order'?" in said
    said = project.levada("rebuild", "analytics", "--table", "shop.Tag", exit_status=1)
    assert "'shop.Tag' does not go to 'analytics'" in said


def test_a_word_that_does_not_exist_is_refused_with_the_list(project):
    said = project.levada("statsu", exit_status=2)
    assert "invalid choice: 'statsu'" in said
    assert "doctor" in said


def test_triggers_lists_shows_and_installs(project):
    assert "shop.Order  " in project.levada("triggers")
    sql = project.levada("triggers", "--sql")
    assert "TRIGGER" in sql
    assert "password" in sql.partition("never ")[2].partition("\n")[0]
    project.python("from levada.capture import uninstall; uninstall('default')")
    said = project.levada("triggers", exit_status=1)
    assert "missing or outdated" in said
    assert "Run: manage.py levada triggers --install" in said
    assert "shop.Order: installed" in project.levada("triggers", "--install")
    assert "up to date" in project.levada("triggers", "--install")


def test_dead_letters_are_listed_and_dropped(project):
    project.python(
        "from levada.models import DeadLetter\n"
        "for n in (1, 2): DeadLetter.objects.create(id=n, consumer='analytics', epoch='e',"
        " topic='changes', offset=n, label='shop.Order', key=f'[{n}]', record='{}',"
        " reason='too large')"
    )
    said = project.levada("dead-letters")
    assert "shop.Order [1]" in said
    assert "too large" in said
    lines = project.levada("dead-letters", "list", "--json").splitlines()
    assert [json.loads(line)["offset"] for line in lines] == [1, 2]
    project.levada("dead-letters", "drop", "1", "2")
    assert "No dead letters." in project.levada("dead-letters")
    assert "dropped" in project.levada("dead-letters", "list", "--all")
    assert "dropped" in project.levada("dead-letters", "--all", "list")
    said = project.levada("dead-letters", "retry", "1", exit_status=1)
    assert "was dropped already" in said
    assert "There is no dead letter 99" in project.levada(
        "dead-letters", "drop", "99", exit_status=1
    )


def test_leave_names_the_groups_there_are(project):
    assert "knows no group 'mail'" in project.levada("leave", "mail", exit_status=1)


def test_a_source_that_is_not_migrated_is_no_stack_trace(tmp_path):
    bare = Project(tmp_path)
    try:
        said = bare.levada("doctor", exit_status=1)
        assert "Traceback" not in said
        assert "Run: manage.py migrate" in said
        said = bare.levada("dead-letters", exit_status=1)
        assert "Traceback" not in said
        assert "Run: manage.py levada doctor" in said
    finally:
        bare.close()
