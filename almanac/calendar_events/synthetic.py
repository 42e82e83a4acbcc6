"""
Made-up release events in any number, to give the replica something to race over.

Every row says `source="synthetic"`: none of these figures was ever published.
A seed gives the same rows on every machine and every run, newest first: the
calendar of 48 countries and 40 figures, read backwards from `LAST_DAY`. The
first n rows do not depend on how many are asked for, so more can be added later.

Rows are written as plain values by one INSERT: of the 43 µs that
`bulk_create` takes for one, 35 go into making and preparing a model instance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import NamedTuple

from django.db import connections, router, transaction

from .models import DateBasis, EconomicEvent, Importance, Status

SOURCE = "synthetic"
LAST_DAY = date(2026, 10, 31)
MOST_ROWS = 2_000_000
BATCH_ROWS = 20_000

COUNTRY_CODES = """
    AE AR AT AU BE BR CA CH CL CN CO CZ DE DK EG ES FI FR GB GR HK HU ID IE
    IL IN IT JP KE KR MX MY NG NL NO NZ PE PH PL PT RO SE SG TH TR VN ZA US
"""
COUNTRIES = tuple(COUNTRY_CODES.split())
LOW, MEDIUM, HIGH = Importance.LOW, Importance.MEDIUM, Importance.HIGH
QUARTER_STARTS = (1, 4, 7, 10)
MONTH_DAYS = 28
"""Monthly figures come on days 1 to 28, which every month has."""


class SyntheticRow(NamedTuple):
    """One row of the calendar's table, each value as a literal that every database reads."""

    date: str
    time: str | None
    event_name: str
    country: str
    importance: int
    actual: str
    forecast: str
    previous: str
    unit: str
    period: str
    status: str
    date_basis: str
    source: str


@dataclass(frozen=True, slots=True)
class Figure:
    """
    A kind of release every country has.

    level and step: where its random walk starts and how far it goes at once,
    in hundredths of the unit, so that every value is exact.
    """

    event_name: str
    unit: str
    importance: Importance
    clock: str | None
    level: int
    step: int


class Series:
    """One figure of one country, walking backwards in time."""

    __slots__ = ("actual", "country", "figure")

    def __init__(self, figure: Figure, country: str, actual: int) -> None:
        self.figure = figure
        self.country = country
        self.actual = actual

    def release(self, day: str, draw: Callable[[], float]) -> SyntheticRow:
        """Make the row of `day` and step back to the one before it."""
        figure, actual = self.figure, self.actual
        previous = actual + int((draw() - 0.5) * 2 * figure.step)
        surprise = int((draw() - 0.5) * figure.step)
        self.actual = previous
        return SyntheticRow(
            day,
            figure.clock,
            figure.event_name,
            self.country,
            int(figure.importance),
            f"{actual / 100:.2f}",
            f"{(actual + surprise) / 100:.2f}",
            f"{previous / 100:.2f}",
            figure.unit,
            "",
            Status.RELEASED.value,
            DateBasis.RELEASE.value,
            SOURCE,
        )


WEEKLY = (
    Figure("Initial Jobless Claims", "thousand", HIGH, "08:30:00", 24_000, 1_500),
    Figure("Crude Oil Inventories", "million barrels", MEDIUM, "10:30:00", 42_000, 900),
    Figure("Natural Gas Storage", "bn cubic feet", LOW, "10:30:00", 310_000, 9_000),
    Figure("Mortgage Applications", "index", LOW, "07:00:00", 25_000, 1_100),
    Figure("10-Year Bond Auction", "% yield", MEDIUM, None, 320, 18),
    Figure("3-Month Bill Auction", "% yield", LOW, None, 210, 14),
    Figure("Central Bank Balance Sheet", "bn", LOW, "16:30:00", 730_000, 6_000),
    Figure("Foreign Reserves", "bn US$", LOW, "09:00:00", 12_000, 240),
)
MONTHLY = (
    Figure("Unemployment Rate", "%", HIGH, "08:30:00", 580, 22),
    Figure("Employment Change", "thousand", HIGH, "08:30:00", 2_100, 1_900),
    Figure("Average Earnings", "% on year", MEDIUM, "08:30:00", 310, 30),
    Figure("CPI", "% on year", HIGH, "08:30:00", 240, 28),
    Figure("Core CPI", "% on year", HIGH, "08:30:00", 220, 16),
    Figure("Producer Prices", "% on year", MEDIUM, "08:30:00", 260, 60),
    Figure("Import Prices", "% on year", LOW, "08:30:00", 180, 80),
    Figure("Retail Sales", "% on month", HIGH, "08:30:00", 30, 70),
    Figure("Industrial Production", "% on month", MEDIUM, "09:15:00", 20, 60),
    Figure("Manufacturing PMI", "index", HIGH, "09:00:00", 5_120, 120),
    Figure("Services PMI", "index", HIGH, "09:00:00", 5_260, 110),
    Figure("Consumer Confidence", "index", MEDIUM, "10:00:00", 9_800, 320),
    Figure("Business Climate", "index", MEDIUM, "10:00:00", 9_600, 240),
    Figure("Building Permits", "thousand", MEDIUM, "08:30:00", 14_000, 700),
    Figure("Housing Starts", "thousand", MEDIUM, "08:30:00", 13_500, 800),
    Figure("House Prices", "% on year", LOW, "09:00:00", 420, 40),
    Figure("Trade Balance", "bn", MEDIUM, "08:30:00", -400, 900),
    Figure("Current Account", "bn", MEDIUM, "08:30:00", -600, 1_100),
    Figure("Budget Balance", "bn", LOW, "14:00:00", -900, 1_400),
    Figure("Money Supply M3", "% on year", LOW, "10:00:00", 480, 40),
    Figure("Private Credit", "% on year", LOW, "10:00:00", 390, 30),
    Figure("Durable Goods Orders", "% on month", MEDIUM, "08:30:00", 40, 180),
    Figure("New Car Registrations", "thousand", LOW, "08:00:00", 9_000, 600),
    Figure("Interest Rate Decision", "%", HIGH, "14:00:00", 325, 13),
)
QUARTERLY = (
    Figure("GDP", "% on quarter", HIGH, "08:30:00", 50, 45),
    Figure("GDP Deflator", "% on quarter", MEDIUM, "08:30:00", 60, 25),
    Figure("Labour Costs", "% on quarter", MEDIUM, "08:30:00", 80, 25),
    Figure("Productivity", "% on quarter", LOW, "08:30:00", 40, 40),
    Figure("Capacity Utilisation", "%", MEDIUM, "09:15:00", 7_850, 60),
    Figure("Household Debt", "% of income", LOW, "11:00:00", 10_200, 90),
    Figure("Corporate Profits", "% on quarter", LOW, "08:30:00", 120, 210),
    Figure("Business Investment", "% on quarter", LOW, "08:30:00", 70, 160),
)


class Calendar:
    """Which series release on which day, drawn up once for a seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed).random
        self.weekly = self._spread(WEEKLY, 5)
        self.monthly = self._spread(MONTHLY, MONTH_DAYS)
        self.quarterly = self._spread(QUARTERLY, MONTH_DAYS)

    def _spread(self, figures: tuple[Figure, ...], days: int) -> list[list[Series]]:
        """Give each figure of each country one of `days` days, so that no day has them all."""
        due: list[list[Series]] = [[] for _ in range(days)]
        for number, figure in enumerate(figures):
            for index, country in enumerate(COUNTRIES):
                actual = figure.level + int((self.draw() - 0.5) * 8 * figure.step)
                due[(number * 5 + index * 3) % days].append(Series(figure, country, actual))
        return due

    def due(self, day: date) -> Iterator[Series]:
        """Yield the series that release on `day`."""
        if day.weekday() < 5:
            yield from self.weekly[day.weekday()]
        if day.day <= MONTH_DAYS:
            yield from self.monthly[day.day - 1]
            if day.month in QUARTER_STARTS:
                yield from self.quarterly[day.day - 1]


def synthetic_rows(seed: int) -> Iterator[SyntheticRow]:
    """Yield rows without end, the newest day first."""
    calendar, day = Calendar(seed), LAST_DAY
    while True:
        written = day.isoformat()
        for series in calendar.due(day):
            yield series.release(written, calendar.draw)
        day -= timedelta(days=1)


def add_synthetic_events(
    rows: int, *, seed: int = 1, progress: Callable[[int], None] = lambda done: None
) -> int:
    """
    Bring the number of synthetic events up to `rows`; return how many were added.

    rows: at most MOST_ROWS. Those that stand already count, so a run that was
    interrupted goes on where it stopped; each batch is a transaction of its
    own. Raises ValueError for a number that is out of range.
    """
    if not 0 <= rows <= MOST_ROWS:
        raise ValueError(f"{rows:,} synthetic rows asked for; choose 0 to {MOST_ROWS:,}.")
    standing = EconomicEvent.objects.filter(source=SOURCE).count()
    fresh = islice(synthetic_rows(seed), standing, rows)
    added = 0
    while batch := list(islice(fresh, BATCH_ROWS)):
        _insert(batch)
        added += len(batch)
        progress(standing + added)
    return added


def _insert(rows: Sequence[SyntheticRow]) -> None:
    alias = router.db_for_write(EconomicEvent)
    quote = connections[alias].ops.quote_name
    columns = ", ".join(quote(name) for name in SyntheticRow._fields)
    values = ", ".join(["%s"] * len(SyntheticRow._fields))
    statement = f"INSERT INTO {quote(EconomicEvent._meta.db_table)} ({columns}) VALUES ({values})"
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        cursor.executemany(statement, rows)
