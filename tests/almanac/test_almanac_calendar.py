"""The calendar: true figures from true files, written once, and made-up ones that say so."""

from datetime import date, time
from decimal import Decimal
from io import StringIO
from itertools import islice, pairwise

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from almanac.calendar_events import synthetic
from almanac.calendar_events.histories import HISTORIES, events
from almanac.calendar_events.importer import import_events, key_of
from almanac.calendar_events.models import DateBasis, EconomicEvent
from scripts.extract_histories import carried

MACRODATA = next(each for each in HISTORIES if each.source == "statsmodels.macrodata")


def event(**fields):
    fields = {
        "date": date(2026, 11, 20),
        "event_name": "CPI",
        "country": "PT",
        "actual": Decimal("2.5"),
        **fields,
    }
    return EconomicEvent(**fields)


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.source)
def test_a_history_is_the_file_its_package_carries(history):
    content = carried(history.package, history.member)
    if content is None:
        pytest.skip(f"{history.package} is not installed")
    assert history.path.read_bytes() == content


def test_the_histories_hold_seven_thousand_true_releases():
    counts = {history.source: sum(1 for _ in events(history)) for history in HISTORIES}
    assert counts == {
        "statsmodels.macrodata": 203 * 12 - 2,
        "vega_datasets.us_employment": 120 * 23,
        "bokeh.unemployment1948": 69 * 12,
        "arch.core_cpi": 743,
        "statsmodels.elec_equip": 257,
    }


def test_a_release_carries_the_figure_of_its_period_and_of_the_one_before():
    gdp = [each for each in events(MACRODATA) if each.event_name == "Real GDP"]
    first, second, last = gdp[0], gdp[1], gdp[-1]
    assert (first.period, first.date, first.previous) == ("1959Q1", date(1959, 3, 31), None)
    assert (second.actual, second.previous) == (Decimal("2778.801"), Decimal("2710.349"))
    assert (last.period, last.date) == ("2009Q3", date(2009, 9, 30))
    assert last.actual == Decimal("12990.341")


def test_no_release_claims_a_publication_day_a_clock_time_or_a_forecast():
    for history in HISTORIES:
        for each in events(history):
            assert each.date_basis == DateBasis.PERIOD_END
            assert each.time is None
            assert each.forecast is None
            assert each.source == history.source


def test_the_zero_that_stands_for_no_inflation_before_the_first_quarter_is_no_release():
    inflation = [
        each for each in events(MACRODATA) if each.unit == "%" and "Infl" in each.event_name
    ]
    assert inflation[0].period == "1959Q2"
    assert inflation[0].previous is None


def test_no_two_releases_of_all_histories_share_a_key():
    keys = [key_of(each) for history in HISTORIES for each in events(history)]
    assert len(keys) == len(set(keys))


@pytest.mark.django_db
def test_a_second_crawl_writes_nothing():
    call_command("crawl_calendar", stdout=StringIO())
    before = list(EconomicEvent.objects.order_by("pk").values_list())
    assert len(before) == 7022
    with CaptureQueriesContext(connection) as queries:
        call_command("crawl_calendar", stdout=StringIO())
    written = [each["sql"] for each in queries if not reads(each["sql"])]
    assert written == []
    assert list(EconomicEvent.objects.order_by("pk").values_list()) == before


def reads(sql):
    return sql.startswith(("SELECT", "BEGIN", "SAVEPOINT", "RELEASE", "COMMIT"))


@pytest.mark.django_db
def test_a_dry_run_counts_and_writes_nothing():
    out = StringIO()
    call_command("crawl_calendar", "--source", "arch.core_cpi", "--dry-run", stdout=out)
    assert "743 new" in out.getvalue()
    assert not EconomicEvent.objects.exists()


@pytest.mark.django_db
def test_a_source_nobody_knows_is_refused_with_the_known_ones():
    with pytest.raises(CommandError, match=r"no source .* statsmodels.macrodata"):
        call_command("crawl_calendar", "--source", "nowhere")


@pytest.mark.django_db
@pytest.mark.parametrize("clock", [None, time(8, 30)], ids=["untimed", "timed"])
def test_an_import_updates_the_row_that_has_the_key(clock):
    import_events([event(time=clock)])
    done = import_events([event(time=clock, actual=Decimal("2.6")), event(country="ES")])
    assert (done.new, done.changed, done.unchanged) == (1, 1, 0)
    assert EconomicEvent.objects.get(country="PT").actual == Decimal("2.6")
    assert EconomicEvent.objects.count() == 2


@pytest.mark.django_db
def test_of_several_events_with_one_key_the_last_is_imported():
    import_events([event(actual=Decimal(1)), event(actual=Decimal(2))])
    assert EconomicEvent.objects.get().actual == Decimal(2)


@pytest.mark.django_db
@pytest.mark.parametrize("clock", [None, time(8, 30)], ids=["untimed", "timed"])
def test_one_event_exists_once_with_and_without_a_clock_time(clock):
    event(time=clock).save()
    with pytest.raises(ValidationError):
        event(time=clock).full_clean()
    with pytest.raises(IntegrityError), transaction.atomic():
        event(time=clock).save()
    event(time=clock, country="US").save()
    event(time=time(9, 0)).save()


def test_a_seed_draws_the_same_events_again_and_another_seed_draws_others():
    def drawn(seed):
        return list(islice(synthetic.synthetic_rows(seed), 5_000))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_the_first_synthetic_event_of_seed_1_is_always_this_one():
    """Random numbers of one seed are the same in every Python: a demo can be compared."""
    assert next(synthetic.synthetic_rows(1)) == (
        "2026-10-30",
        "08:30:00",
        "Initial Jobless Claims",
        "AU",
        3,
        "210.61",
        "213.60",
        "212.70",
        "thousand",
        "",
        "released",
        "release",
        "synthetic",
    )


def test_synthetic_events_have_keys_of_their_own_and_say_what_they_are():
    seen = list(islice(synthetic.synthetic_rows(1), 60_000))
    assert len({row_key(each) for each in seen}) == len(seen)
    assert {each.source for each in seen} == {"synthetic"}
    assert len({each.country for each in seen}) == 48


def row_key(row):
    return (row.date, row.time, row.country, row.event_name)


def test_a_synthetic_release_knows_the_figure_of_the_one_before_it():
    seen = [
        each
        for each in islice(synthetic.synthetic_rows(1), 40_000)
        if (each.country, each.event_name) == ("PT", "CPI")
    ]
    assert len(seen) > 2
    for later, earlier in pairwise(seen):
        assert later.date > earlier.date
        assert later.previous == earlier.actual


@pytest.mark.django_db
def test_adding_synthetic_events_goes_on_where_it_stopped(monkeypatch):
    monkeypatch.setattr(synthetic, "BATCH_ROWS", 100)
    heard = []
    assert synthetic.add_synthetic_events(250, progress=heard.append) == 250
    assert heard == [100, 200, 250]
    assert synthetic.add_synthetic_events(400) == 150
    assert synthetic.add_synthetic_events(400) == 0
    wanted = list(islice(synthetic.synthetic_rows(1), 400))
    saved = EconomicEvent.objects.order_by("pk")
    assert [tuple(map(str, key_of(each))) for each in saved] == [
        tuple(map(str, row_key(each))) for each in wanted
    ]
    assert [each.actual for each in saved] == [Decimal(each.actual) for each in wanted]


def test_a_synthetic_row_fills_every_column_of_the_table_but_its_key():
    columns = {field.column for field in EconomicEvent._meta.concrete_fields}
    assert columns - set(synthetic.SyntheticRow._fields) == {"id"}


@pytest.mark.parametrize("rows", [-1, 2_000_001])
def test_a_number_of_synthetic_rows_out_of_range_is_refused(rows):
    with pytest.raises(ValueError, match="2,000,000"):
        synthetic.add_synthetic_events(rows)
