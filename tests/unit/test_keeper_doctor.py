"""The doctor finds each thing that can be wrong, and says what to type."""

import shutil
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from django.db import connection, connections
from django.utils import timezone

from levada.changes import CHANGES, OutboxRow, Position
from levada.errors import LogCorrupt
from levada.keeper import doctor
from levada.keeper.doctor import NOTE, OK, PROBLEM, Finding
from levada.keeper.locks import PartLock, held
from levada.keeper.parts import lock_path
from levada.log import open_log
from levada.models import DeadLetter, GroupPosition, Outbox, VerifiedTable


@pytest.fixture(autouse=True)
def log_place(settings, tmp_path):
    settings.LEVADA = {**settings.LEVADA, "LOG": {"NAME": tmp_path / "log.sqlite3"}}
    yield tmp_path / "log.sqlite3"
    open_log().close()


@pytest.fixture
def log(log_place):
    """A log with three records in `changes`."""
    rows = [
        OutboxRow(CHANGES, "shop.Order", "c", f"[{n}]", None, "{}", "f", n, n, "2026-11-21", None)
        for n in (1, 2, 3)
    ]
    made = open_log()
    made.append(rows, source="default", expected=None, cursor="3")
    return made


def states(findings):
    return [finding.state for finding in findings]


def test_an_examination_that_breaks_is_a_finding_and_the_others_go_on(monkeypatch):
    def _log():
        raise LogCorrupt("the log is cut short. Run: manage.py levada rebuild")

    def _clock():
        yield Finding(OK, "fine")

    monkeypatch.setattr(doctor, "EXAMINATIONS", (_log, _clock))
    broken, fine = doctor.examine()
    assert broken == Finding(PROBLEM, "log: the log is cut short", "Run: manage.py levada rebuild")
    assert fine.state == OK


def test_system_checks_are_findings(settings):
    settings.LEVADA = {**settings.LEVADA, "BATCH_ROW": 5}
    found = list(doctor._settings())
    assert found[0].state == PROBLEM
    assert "levada.E002" in found[0].what
    assert "BATCH_ROWS" in found[0].todo


@pytest.mark.django_db
def test_a_migrated_source_is_fine_and_a_missing_migration_is_named():
    from django.db.migrations.recorder import MigrationRecorder

    assert states(doctor._migrations()) == [OK]
    MigrationRecorder(connection).record_unapplied("levada", "0003_verified")
    (finding,) = doctor._migrations()
    assert "0003_verified" in finding.what
    assert finding.todo == "Run: manage.py migrate"


@pytest.mark.django_db
def test_stale_triggers_are_a_problem(monkeypatch):
    import levada.capture

    monkeypatch.setattr(levada.capture, "stale", lambda alias: ["shop.Order"])
    (finding,) = doctor._triggers()
    assert finding.state == PROBLEM
    assert "levada triggers --install" in finding.todo
    monkeypatch.setattr(levada.capture, "stale", lambda alias: [])
    assert states(doctor._triggers()) == [OK]


@pytest.mark.django_db
def test_the_sources_version_is_told():
    assert states(doctor._source_database())[0] == OK


@pytest.mark.postgresql
@pytest.mark.django_db
def test_a_right_that_is_missing_is_named_with_its_grant():
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE levada_doctor_patient")
        cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO levada_doctor_patient")
        cursor.execute("SET LOCAL ROLE levada_doctor_patient")
        found = list(doctor._rights(cursor))
        cursor.execute("RESET ROLE")
    assert [finding.todo for finding in found] == [
        'As its owner: GRANT DELETE ON "levada_outbox" TO "levada_doctor_patient"'
    ]


@pytest.mark.postgresql
@pytest.mark.django_db
def test_a_long_open_transaction_is_noted_with_its_pid(monkeypatch):
    monkeypatch.setattr(doctor, "LONG_TRANSACTION_S", 0)
    other = connections.create_connection("default")
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), pg_current_xact_id()")
            pid = cursor.fetchone()[0]
        with connection.cursor() as cursor:
            found = list(doctor._long_transactions(cursor))
    finally:
        other.close()
    assert f"SELECT pg_terminate_backend({pid})" in " ".join(finding.todo for finding in found)


@pytest.mark.django_db
def test_clocks_that_differ_are_noted(monkeypatch):
    assert states(doctor._clock()) == [OK]
    late = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(minutes=5))
    monkeypatch.setattr(doctor, "datetime", late)
    (finding,) = doctor._clock()
    assert finding.state == NOTE
    assert "5 min" in finding.what


@pytest.mark.django_db
def test_an_outbox_that_nobody_relays_is_noted_and_a_large_one_is_a_problem(monkeypatch):
    Outbox.objects.all().delete()
    assert states(doctor._outbox()) == [OK]
    Outbox.objects.create(op="m", topic="t", transaction=1, changed_at="2026-11-21T00:00:00+00:00")
    assert states(doctor._outbox()) == [NOTE]
    monkeypatch.setattr(doctor, "MANY_WAITING", 1)
    assert states(doctor._outbox()) == [PROBLEM]


def test_a_log_that_was_never_written_is_only_noted():
    assert states(doctor._log()) == [NOTE]


def test_a_log_that_cannot_be_read_is_a_problem(log_place):
    log_place.write_bytes(b"not a log at all" * 100)
    assert states(doctor._log()) == [PROBLEM]


def test_a_group_that_lost_records_is_a_problem(log, monkeypatch):
    log.commit("mail", Position(log.epoch, CHANGES, 0))
    assert states(doctor._log()) == [OK]
    found = doctor.read_log()
    topics = (SimpleNamespace(topic=CHANGES, begin=2, end=3),)
    fake = SimpleNamespace(error="", place="log", size_bytes=1, topics=topics, groups=found.groups)
    monkeypatch.setattr(doctor, "read_log", lambda: fake)
    assert [f.todo for f in doctor._log() if f.state == PROBLEM] == [
        "Run: manage.py levada replay mail --topic changes"
    ]


def test_a_group_nobody_runs_is_noted_with_the_way_to_leave_it(log):
    log.commit("gone", Position(log.epoch, CHANGES, 1))
    (finding,) = doctor._retention()
    assert finding.todo == "Run: manage.py levada leave gone"


def test_a_group_nobody_runs_is_noted_before_it_is_late(log):
    """It will pin the log from the next record on."""
    log.commit("gone", log.end(CHANGES))
    (finding,) = doctor._retention()
    assert "'gone'" in finding.what
    assert finding.todo == "Run: manage.py levada leave gone"


def test_a_store_that_is_late_beyond_retention_pins_the_log(log, settings):
    log.commit("analytics", Position(log.epoch, CHANGES, 1))
    assert list(doctor._retention()) == []
    settings.LEVADA = {**settings.LEVADA, "LOG_RETENTION_S": 1e-9}
    (finding,) = doctor._retention()
    assert "'analytics'" in finding.what


@pytest.mark.parametrize(
    ("position", "state", "words"),
    [
        (("same", 2), OK, "1 record behind"),
        (("other", 2), PROBLEM, "of another log"),
        (("same", 9), PROBLEM, "ahead of the log"),
    ],
)
def test_a_stores_position_is_compared_with_the_log(log, position, state, words):
    epoch, offset = position
    at = Position(log.epoch if epoch == "same" else epoch, CHANGES, offset)
    finding = doctor._position("analytics", at, log.epoch)
    assert (finding.state, words in finding.what) == (state, True)


def test_a_store_before_the_oldest_record_needs_a_rebuild(log):
    log.prune(older_than_s=-1)
    finding = doctor._position("analytics", Position(log.epoch, CHANGES, 1), log.epoch)
    assert "no longer reaches" in finding.what
    assert finding.todo == "Run: manage.py levada rebuild analytics"


def test_little_space_is_noted_where_each_file_lies(monkeypatch):
    assert set(states(doctor._disk())) <= {OK, NOTE}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    found = list(doctor._disk())
    assert states(found) == [NOTE, NOTE]
    assert "1.0 KB are free where the log lies" in found[0].what


def test_parts_that_nobody_keeps_are_named():
    (finding,) = doctor._keepers()
    assert "relay" in finding.what
    assert finding.todo == "Run: manage.py levada run"
    with held(PartLock(lock_path("relay"), "relay")):
        kept, idle = doctor._keepers()
    assert kept.state == OK
    assert "--only apply:analytics" in idle.todo
    assert "relay" not in idle.todo


@pytest.mark.django_db
def test_dead_letters_that_wait_are_a_problem():
    assert states(doctor._dead_letters()) == [OK]
    letter = DeadLetter.objects.create(consumer="analytics", epoch="e", topic=CHANGES, offset=1)
    assert states(doctor._dead_letters()) == [PROBLEM]
    letter.state = DeadLetter.State.DROPPED
    letter.save()
    assert states(doctor._dead_letters()) == [OK]


def verified(**changes):
    from levada.conf import replicated_in

    for label in replicated_in("analytics"):
        VerifiedTable.objects.create(
            store="analytics",
            label=label,
            source_rows=1,
            verified_at=timezone.now(),
            **{"equal": True, **changes},
        )


@pytest.mark.django_db
def test_a_store_that_was_never_verified_is_noted():
    (finding,) = doctor._verified()
    assert (finding.state, finding.todo) == (NOTE, "Run: manage.py levada verify analytics")


@pytest.mark.django_db
def test_a_store_that_was_equal_is_fine_until_a_table_is_added():
    verified()
    assert states(doctor._verified()) == [OK]
    VerifiedTable.objects.filter(label="shop.Order").delete()
    (finding,) = doctor._verified()
    assert "partly verified" in finding.what


@pytest.mark.django_db
def test_a_store_that_differed_is_a_problem():
    verified(equal=False, differences=2)
    assert states(doctor._verified()) == [PROBLEM]


@pytest.mark.django_db
def test_what_is_remembered_of_a_table_no_longer_replicated_does_not_count():
    from levada.keeper.verified import last_verified

    verified()
    VerifiedTable.objects.create(
        store="analytics",
        label="shop.Gone",
        equal=False,
        differences=5,
        source_rows=1,
        verified_at=datetime(2020, 1, 1, tzinfo=UTC),
    )
    found = last_verified("analytics")
    assert (found.equal, found.differences, found.words) == (True, 0, "verified")


@pytest.mark.django_db
def test_the_status_tells_how_a_groups_next_record_failed(log):
    """Of another log's position nothing is told: its offset means another record."""
    for group, epoch in (("mail", log.epoch), ("search", "other")):
        log.commit(group, Position(log.epoch, CHANGES, 1))
        GroupPosition.objects.create(
            group=group, topic=CHANGES, epoch=epoch, offset=1, tries=2, reason="refused"
        )
    found = {each.group: (each.tries, each.reason) for each in doctor.read_log().groups}
    assert found == {"mail": (2, "refused"), "search": (0, "")}
