"""
Real macroeconomic histories, read as release events; the files lie in `data/`.

Each file is an unchanged copy of one that a published Python package carries
(`scripts/extract_histories.py` makes them again). They say which figure each
period had, not on which day it was published: every event therefore carries
`date_basis="period_end"`, no clock time and no forecast. `previous` is the
figure of the period before. Nothing is computed, filled in or guessed; a
period without a figure makes no event.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from .models import DateBasis, EconomicEvent, Importance, Status

DATA = Path(__file__).parent / "data"
LOW, MEDIUM, HIGH = Importance.LOW, Importance.MEDIUM, Importance.HIGH
BILLIONS = "bn chained 2005 US$, annual rate"
JOBS = "thousand jobs"


@dataclass(frozen=True, slots=True)
class Series:
    """One column of a file: what the calendar calls it, how much it matters, its unit."""

    column: str
    event_name: str
    importance: Importance
    unit: str


@dataclass(frozen=True, slots=True)
class History:
    """
    One file of true figures and where it comes from.

    source: the name each event carries in its `source`. package and member:
    the distribution and the file inside it. origin and licence: who measured
    the figures, and on what terms they may be passed on.
    """

    source: str
    filename: str
    country: str
    series: tuple[Series, ...]
    read: Callable[[History], Iterator[Observation]]
    package: str
    member: str
    origin: str
    licence: str

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return DATA / self.filename


@dataclass(frozen=True, slots=True)
class Observation:
    """One figure of one series: the period's name, its last day, and the value."""

    series: Series
    period: str
    day: date
    actual: Decimal


def events(history: History) -> Iterator[EconomicEvent]:
    """Yield the unsaved events of `history`, each series in order of time."""
    before: dict[str, Decimal] = {}
    for seen in history.read(history):
        yield EconomicEvent(
            date=seen.day,
            event_name=seen.series.event_name,
            country=history.country,
            importance=seen.series.importance,
            actual=seen.actual,
            previous=before.get(seen.series.event_name),
            unit=seen.series.unit,
            period=seen.period,
            status=Status.RELEASED,
            date_basis=DateBasis.PERIOD_END,
            source=history.source,
        )
        before[seen.series.event_name] = seen.actual


def month_end(year: int, month: int) -> date:
    """Return the month's last day."""
    return date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)


def _rows(history: History) -> Iterator[dict[str, str]]:
    with history.path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _observations(
    history: History, row: dict[str, str], period: str, day: date
) -> Iterator[Observation]:
    for series in history.series:
        if row[series.column] != "":
            yield Observation(series, period, day, Decimal(row[series.column]))


def _quarterly(history: History) -> Iterator[Observation]:
    for row in _rows(history):
        year, quarter = int(row["year"]), int(row["quarter"])
        day = month_end(year, quarter * 3)
        for seen in _observations(history, row, f"{year}Q{quarter}", day):
            # The first quarter has no quarter before it, so its inflation is
            # unknown; the file writes a 0 there.
            if (year, quarter) == (1959, 1) and seen.series.column in ("infl", "realint"):
                continue
            yield seen


def _monthly(column: str, form: str) -> Callable[[History], Iterator[Observation]]:
    """Read files whose `column` holds the month's first day, written in `form`."""

    def read(history: History) -> Iterator[Observation]:
        for row in _rows(history):
            first = datetime.strptime(row[column], form).date()
            day = month_end(first.year, first.month)
            yield from _observations(history, row, f"{first:%Y-%m}", day)

    return read


def _year_by_month(history: History) -> Iterator[Observation]:
    """Read a file with a row a year and a column a month."""
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    for row in _rows(history):
        year = int(row["Year"])
        for number, month in enumerate(months, start=1):
            if row[month] != "":
                period, day = f"{year}-{number:02}", month_end(year, number)
                yield Observation(history.series[0], period, day, Decimal(row[month]))


HISTORIES: tuple[History, ...] = (
    History(
        source="statsmodels.macrodata",
        filename="us_macro_quarterly.csv",
        country="US",
        series=(
            Series("realgdp", "Real GDP", HIGH, BILLIONS),
            Series("realcons", "Real Personal Consumption", MEDIUM, BILLIONS),
            Series("realinv", "Real Private Investment", MEDIUM, BILLIONS),
            Series("realgovt", "Real Federal Spending", LOW, BILLIONS),
            Series("realdpi", "Real Disposable Income", MEDIUM, BILLIONS),
            Series("cpi", "Consumer Price Index", HIGH, "index, 1982-84 = 100"),
            Series("m1", "M1 Money Stock", LOW, "bn US$"),
            Series("tbilrate", "3-Month Treasury Bill Rate", MEDIUM, "%"),
            Series("unemp", "Unemployment Rate, Quarter", HIGH, "%, seasonally adjusted"),
            Series("pop", "Population", LOW, "million"),
            Series("infl", "Inflation Rate, Annualised", HIGH, "%"),
            Series("realint", "Real Interest Rate", MEDIUM, "%"),
        ),
        read=_quarterly,
        package="statsmodels",
        member="statsmodels/datasets/macrodata/macrodata.csv",
        origin="FRED, Federal Reserve Bank of St. Louis, and the U.S. Bureau of Labor "
        "Statistics, accessed 15 December 2009; compiled by Skipper Seabold",
        licence="public domain",
    ),
    History(
        source="vega_datasets.us_employment",
        filename="us_employment.csv",
        country="US",
        series=(
            Series("nonfarm_change", "Nonfarm Payrolls", HIGH, f"{JOBS}, change"),
            Series("nonfarm", "Nonfarm Employment", HIGH, JOBS),
            Series("private", "Private Employment", MEDIUM, JOBS),
            Series("goods_producing", "Employment: Goods-Producing", LOW, JOBS),
            Series("service_providing", "Employment: Service-Providing", LOW, JOBS),
            Series("private_service_providing", "Employment: Private Services", LOW, JOBS),
            Series("mining_and_logging", "Employment: Mining and Logging", LOW, JOBS),
            Series("construction", "Employment: Construction", MEDIUM, JOBS),
            Series("manufacturing", "Employment: Manufacturing", MEDIUM, JOBS),
            Series("durable_goods", "Employment: Durable Goods", LOW, JOBS),
            Series("nondurable_goods", "Employment: Nondurable Goods", LOW, JOBS),
            Series("trade_transportation_utilties", "Employment: Trade and Transport", LOW, JOBS),
            Series("wholesale_trade", "Employment: Wholesale Trade", LOW, JOBS),
            Series("retail_trade", "Employment: Retail Trade", LOW, JOBS),
            Series("transportation_and_warehousing", "Employment: Transportation", LOW, JOBS),
            Series("utilities", "Employment: Utilities", LOW, JOBS),
            Series("information", "Employment: Information", LOW, JOBS),
            Series("financial_activities", "Employment: Financial Activities", LOW, JOBS),
            Series("professional_and_business_services", "Employment: Business", LOW, JOBS),
            Series("education_and_health_services", "Employment: Education, Health", LOW, JOBS),
            Series("leisure_and_hospitality", "Employment: Leisure, Hospitality", LOW, JOBS),
            Series("other_services", "Employment: Other Services", LOW, JOBS),
            Series("government", "Employment: Government", LOW, JOBS),
        ),
        read=_monthly("month", "%Y-%m-%d"),
        package="vega-datasets",
        member="vega_datasets/_data/us-employment.csv",
        origin="U.S. Bureau of Labor Statistics, Current Employment Statistics, seasonally "
        "adjusted, downloaded 11 November 2018",
        licence="public domain (work of the U.S. government)",
    ),
    History(
        source="bokeh.unemployment1948",
        filename="us_unemployment.csv",
        country="US",
        series=(Series("", "Unemployment Rate", HIGH, "%, not seasonally adjusted"),),
        read=_year_by_month,
        package="bokeh_sampledata",
        member="bokeh_sampledata/_data/unemployment1948.csv",
        origin="U.S. Bureau of Labor Statistics, Current Population Survey",
        licence="public domain (work of the U.S. government)",
    ),
    History(
        source="arch.core_cpi",
        filename="us_core_cpi.csv",
        country="US",
        series=(Series("CPILFESL", "Core CPI", HIGH, "index, 1982-84 = 100"),),
        read=_monthly("Date", "%m/%d/%Y"),
        package="arch",
        member="arch/data/core_cpi/core-cpi.csv.gz",
        origin="U.S. Bureau of Labor Statistics, series CPILFESL, by way of FRED",
        licence="public domain (work of the U.S. government)",
    ),
    History(
        source="statsmodels.elec_equip",
        filename="euro_area_electrical_turnover.csv",
        country="EA",
        series=(
            Series(
                "STS.M.I7.W.TOVT.NS0016.4.000",
                "Turnover: Electrical Equipment",
                LOW,
                "index, working day adjusted",
            ),
        ),
        read=_monthly("DATE", "%b-%d-%Y"),
        package="statsmodels",
        member="statsmodels/datasets/elec_equip/elec_equip.csv",
        origin="Eurostat, short-term business statistics, euro area 18",
        licence="public domain, as the package states",
    ),
)
"""Every history the importer knows, in the order it imports them."""
