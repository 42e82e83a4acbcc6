"""Each misconfiguration has an id, says what and what to type, and a sound project has none."""

import sqlite3
from contextlib import closing

import pytest
from django.core import mail
from django.core.checks import run_checks
from django.db import connection, connections, models, router
from django.test import override_settings
from django.test.utils import isolate_apps

from levada import checks, conf
from levada.checks import check_settings, check_source


@pytest.fixture
def databases(settings, tmp_path):
    """DATABASES with a store, to be spoilt; afterwards it is as it was."""
    before = {alias: dict(configured) for alias, configured in settings.DATABASES.items()}
    store = {"ENGINE": "levada.stores.duckdb", "NAME": tmp_path / "a.duckdb"}
    settings.DATABASES["analytics"] = store
    yield settings.DATABASES
    settings.DATABASES.clear()
    settings.DATABASES.update(before)


@pytest.fixture
def project(databases, tmp_path):
    """A sound project whose LEVADA and DATABASES a test spoils, then asks for its messages."""

    class Project:
        def messages(self, **levada):
            base = {
                "REPLICATE": {"analytics": ["shop.Order"]},
                "LOG": {"NAME": tmp_path / "log.sqlite3"},
            }
            with override_settings(LEVADA={**base, **levada}):
                return check_settings()

        def ids(self, **levada):
            return [message.id for message in self.messages(**levada)]

    return Project()


def test_a_sound_project_has_no_message(project):
    assert project.messages() == []


def test_the_checks_are_registered_with_django():
    with override_settings(LEVADA=["analytics"]):
        assert "levada.E001" in [message.id for message in run_checks(tags=["levada"])]


def test_every_message_says_what_and_what_to_type(project):
    for levada in ({"BATCH": 1}, {"BATCH_ROWS": "many"}, {"REPLICATE": {"nowhere": ["shop.Nope"]}}):
        for message in project.messages(**levada):
            assert message.msg.endswith(".")
            assert message.hint


def test_levada_must_be_a_dict():
    with override_settings(LEVADA=["analytics"]):
        (message,) = check_settings()
    assert message.id == "levada.E001"
    assert "list" in message.msg
    assert message.hint.startswith("Write: LEVADA =")


def test_an_unknown_setting_gets_a_suggestion(project):
    (message,) = project.messages(BATCH_ROW=5)
    assert message.id == "levada.E002"
    assert "Did you mean 'BATCH_ROWS'?" in message.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOURCE", 7),
        ("LOG", "log.sqlite3"),
        ("LOG_RETENTION_S", -1),
        ("LOG_RETENTION_S", "7 days"),
        ("BATCH_ROWS", 0),
        ("BATCH_ROWS", 10.5),
        ("POLL_S", 0),
        ("RETRIES", True),
        ("ON_POISON", "ignore"),
        ("ON_DRIFT", None),
        ("HEALTH_PORT", 70_000),
        ("STOP_S", "soon"),
    ],
)
def test_a_value_that_cannot_work_is_refused(project, name, value):
    messages = project.messages(**{name: value})
    assert messages[0].id == "levada.E003"
    assert name in messages[0].msg


def test_every_default_passes_its_own_check():
    for setting in conf.SETTINGS.values():
        assert checks.complaint(setting, setting.default) == "", setting.name


def test_replicate_must_be_a_dict_of_lists(project):
    assert project.ids(REPLICATE=["shop.Order"]) == ["levada.E004"]
    assert project.ids(REPLICATE={"analytics": "shop.Order"}) == ["levada.E004"]
    assert project.ids(REPLICATE={"analytics": {"shop.Order": {"only": ["id"]}}}) == ["levada.E004"]


def test_exclude_given_as_text_is_not_taken_letter_by_letter(project):
    (message,) = project.messages(
        REPLICATE={"analytics": {"shop.Customer": {"exclude": "password"}}}
    )
    assert message.id == "levada.E004"
    assert message.hint == "Write: {'exclude': ['password']}"


def test_all_unknown_models_are_named_at_once_with_suggestions(project):
    one, two = project.messages(REPLICATE={"analytics": ["shop.Ordr", "nowhere.Thing"]})
    assert (one.id, two.id) == ("levada.E005", "levada.E005")
    assert "Did you mean 'shop.Order'?" in one.hint
    assert "nowhere.Thing" in two.msg


def test_an_excluded_primary_key_is_refused(project):
    (message,) = project.messages(REPLICATE={"analytics": {"shop.Order": {"exclude": ["id"]}}})
    assert message.id == "levada.E006"
    assert "primary key" in message.msg


def test_an_excluded_field_that_does_not_exist_is_refused(project):
    (message,) = project.messages(REPLICATE={"analytics": {"shop.Order": {"exclude": ["ssn"]}}})
    assert message.id == "levada.E006"
    assert "ssn" in message.msg


@isolate_apps("tests.shop")
def test_a_field_that_cannot_be_carried_exactly_is_refused():
    class Money(models.DecimalField):
        def db_type(self, connection):
            return "money"

    class Account(models.Model):  # noqa: DJ008
        balance = Money(max_digits=9, decimal_places=2)

        class Meta:
            app_label = "shop"

    (message,) = checks._model(Account, ())
    assert message.id == "levada.E006"
    assert "shop.Account.balance is a Money" in message.msg
    assert list(checks._model(Account, ("balance",))) == []


def test_a_store_that_is_not_in_databases_is_refused(project):
    (message,) = project.messages(REPLICATE={"analytisc": ["shop.Order"]})
    assert message.id == "levada.E007"
    assert "Did you mean 'analytics'?" in message.hint


def test_a_store_that_is_the_source_is_refused(project):
    assert project.ids(REPLICATE={"default": ["shop.Order"]}) == ["levada.E008"]


def test_a_source_that_is_not_in_databases_is_refused(project):
    assert "levada.E009" in project.ids(SOURCE="main")


def test_a_vendor_without_triggers_is_refused(project, monkeypatch):
    class MySQL:
        vendor = "mysql"

    monkeypatch.setattr(checks, "connections", {"default": MySQL()})
    (message,) = project.messages()
    assert message.id == "levada.E010"
    assert "mysql" in message.msg


def sqlite_connection(monkeypatch):
    class SQLite:
        vendor = "sqlite"

    monkeypatch.setattr(checks, "connections", {"default": SQLite()})


def test_a_source_in_memory_is_refused(project, databases, monkeypatch):
    sqlite_connection(monkeypatch)
    databases["default"] = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
    }
    assert project.ids() == ["levada.E011"]


def test_deferred_transactions_on_sqlite_are_warned_of(project, databases, monkeypatch):
    sqlite_connection(monkeypatch)
    databases["default"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}
    (message,) = project.messages()
    assert message.id == "levada.W002"
    assert "IMMEDIATE" in message.hint


def test_a_database_that_is_no_store_is_refused(project, databases):
    databases["analytics"] = dict(databases["default"])
    assert "levada.E012" in project.ids()


def test_two_stores_in_one_file_are_refused(project, databases):
    databases["second"] = dict(databases["analytics"])
    ids = project.ids(REPLICATE={"analytics": ["shop.Order"], "second": ["shop.Order"]})
    assert ids == ["levada.E013"]


@pytest.fixture
def not_testing(monkeypatch):
    """As outside of a test run."""
    monkeypatch.delattr(mail, "outbox")


def test_a_store_in_memory_is_warned_of(project, databases, not_testing):
    databases["analytics"]["NAME"] = ":memory:"
    assert project.ids() == ["levada.W004"]


def test_a_log_without_a_place_is_refused(project, databases, not_testing):
    databases["analytics"]["NAME"] = ":memory:"
    assert "levada.E014" in project.ids(LOG={})


def test_a_test_run_puts_the_store_into_memory_without_a_message(project, databases):
    """`manage.py test` ended with E014 in a project of three lines: its log lies beside the store.

    Django makes the test databases first, in memory, and then runs the checks.
    """
    databases["analytics"]["NAME"] = ":memory:"
    assert project.ids(LOG={}) == []


@pytest.mark.parametrize("name", ["missing/log.sqlite3", "."])
def test_a_log_that_cannot_be_written_is_refused(project, tmp_path, name):
    (message,) = project.messages(LOG={"NAME": tmp_path / name})
    assert message.id == "levada.E014"
    assert "no folder" in message.msg or "is a folder" in message.msg


def test_an_unknown_log_engine_or_option_is_refused(project, tmp_path):
    name = tmp_path / "log.sqlite3"
    for engine in ("rabbit", "levada.log.rabbit", "no.such.log", 7):
        assert project.ids(LOG={"NAME": name, "ENGINE": engine}) == ["levada.E015"]
    assert project.ids(LOG={"NAME": name, "SYNC": "OFF"}) == ["levada.E015"]


def test_a_model_routed_elsewhere_is_warned_of(project, settings):
    class Elsewhere:
        def db_for_write(self, model, **hints):
            return "analytics" if model._meta.label == "shop.Order" else None

    settings.DATABASE_ROUTERS = [Elsewhere()]
    (message,) = project.messages()
    assert message.id == "levada.W003"
    assert "shop.Order" in message.msg


@pytest.mark.django_db
def test_a_view_behind_a_model_is_refused():
    with connection.cursor() as cursor:
        cursor.execute("CREATE VIEW shop_seats_taken AS SELECT * FROM shop_seat WHERE taken")
    with isolate_apps("tests.shop"):

        class SeatTaken(models.Model):  # noqa: DJ008
            number = models.IntegerField(primary_key=True)

            class Meta:
                app_label = "shop"
                db_table = "shop_seats_taken"
                managed = False

        each = conf.Replicated(SeatTaken, (), ("analytics",))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checks.conf, "replicated", lambda: {"shop.SeatTaken": each})
            messages = check_source(databases=["default"])
    assert [message.id for message in messages] == ["levada.E016"]


@pytest.mark.sqlite
@pytest.mark.django_db
def test_an_sqlite_source_without_wal_is_warned_of(tmp_path, monkeypatch):
    with closing(sqlite3.connect(tmp_path / "rollback.sqlite3")) as rollback:

        class Rollback:
            vendor = "sqlite"

            def cursor(self):
                return closing(rollback.cursor())

        monkeypatch.setattr(checks, "connections", {"default": Rollback()})
        (message,) = checks._wal_mode("default")
    assert message.id == "levada.W001"
    assert "WAL" in message.hint


def test_the_source_is_left_alone_unless_django_names_it():
    assert check_source(databases=None) == []


def test_an_exclude_on_a_proxy_reaches_the_table_of_its_model():
    with isolate_apps("tests.shop"):
        from tests.shop.models import Customer

        class Regular(Customer):
            class Meta:
                proxy = True
                app_label = "shop"

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conf, "model_named", lambda alias, label: Regular)
            with override_settings(
                LEVADA={"REPLICATE": {"analytics": {"shop.Regular": {"exclude": ["password"]}}}}
            ):
                found = conf.replicated()
    assert found["shop.Customer"].exclude == ("password",)


def what_models_lack(replicate):
    """Return the ids and models Django warns of when it is asked about the store."""
    with override_settings(LEVADA={"REPLICATE": replicate}):
        messages = run_checks(tags=["models"], databases=["analytics"])
    return [(message.id, message.obj._meta.label) for message in messages]


@pytest.fixture
def no_partial_indexes(monkeypatch):
    """As if no database could make an index under a condition."""
    for alias in ("default", "analytics"):
        features = type(connections[alias].features)
        monkeypatch.setattr(features, "supports_partial_indexes", False)


@pytest.mark.django_db
def test_a_store_is_not_asked_for_the_constraints_of_what_it_replicates(no_partial_indexes):
    """EconomicEvent is unique under a condition, and a replica has no constraints.

    A project that only has a replica was warned in each `migrate` of what DuckDB cannot make.
    """
    wanted = ("models.W036", "calendar_events.EconomicEvent")
    assert wanted in what_models_lack({})
    assert wanted in what_models_lack({"analytics": ["shop.Order"]})
    assert what_models_lack({"analytics": ["calendar_events.EconomicEvent"]}) == []


@pytest.mark.django_db
def test_other_databases_are_asked_for_them(no_partial_indexes):
    with override_settings(LEVADA={"REPLICATE": {"analytics": ["calendar_events.EconomicEvent"]}}):
        messages = run_checks(tags=["models"], databases=["default", "analytics"])
    assert [message.id for message in messages] == ["models.W036"]


def test_settings_that_cannot_work_do_not_stop_the_check_of_models():
    assert what_models_lack({"analytics": ["shop.Nothing"]}) == what_models_lack({})
    assert what_models_lack([]) == what_models_lack({})


def test_the_check_of_models_leaves_the_routers_as_they_were():
    before = list(router.routers)
    what_models_lack({"analytics": ["shop.Order"]})
    assert router.routers == before
