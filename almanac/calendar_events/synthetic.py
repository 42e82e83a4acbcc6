"""
Made-up release events in any number, to give the replica something to race over.

Every row says `source="synthetic"`: none of these figures was ever published.
A seed gives the same rows on every machine and every run, newest first: the
calendar of 48 countries and 40 figures, read backwards from `LAST_DAY`. The
first n rows do not depend on how many are asked for, so more can be added later.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import islice

from .models import EconomicEvent, Importance, Status

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
    clock: time | None
    level: int
    step: int


class Series:
    """One figure of one country, walking backwards in time."""

    __slots__ = ("actual", "country", "figure")

    def __init__(self, figure: Figure, country: str, actual: int) -> None:
        self.figure = figure
        self.country = country
        self.actual = actual

    def release(self, day: date, draw: Callable[[], float]) -> EconomicEvent:
        """Make the event of `day` and step back to the one before it."""
        figure, actual = self.figure, self.actual
        previous = actual + int((draw() - 0.5) * 2 * figure.step)
        surprise = int((draw() - 0.5) * figure.step)
        self.actual = previous
        return EconomicEvent(
            date=day,
            time=figure.clock,
            event_name=figure.event_name,
            country=self.country,
            importance=figure.importance,
            actual=_hundredths(actual),
            forecast=_hundredths(actual + surprise),
            previous=_hundredths(previous),
            unit=figure.unit,
            status=Status.RELEASED,
            source=SOURCE,
        )


def _hundredths(value: int) -> Decimal:
    return Decimal(value).scaleb(-2)


WEEKLY = (
    Figure("Initial Jobless Claims", "thousand", HIGH, time(8, 30), 24_000, 1_500),
    Figure("Crude Oil Inventories", "million barrels", MEDIUM, time(10, 30), 42_000, 900),
    Figure("Natural Gas Storage", "bn cubic feet", LOW, time(10, 30), 310_000, 9_000),
    Figure("Mortgage Applications", "index", LOW, time(7, 0), 25_000, 1_100),
    Figure("10-Year Bond Auction", "% yield", MEDIUM, None, 320, 18),
    Figure("3-Month Bill Auction", "% yield", LOW, None, 210, 14),
    Figure("Central Bank Balance Sheet", "bn", LOW, time(16, 30), 730_000, 6_000),
    Figure("Foreign Reserves", "bn US$", LOW, time(9, 0), 12_000, 240),
)
MONTHLY = (
    Figure("Unemployment Rate", "%", HIGH, time(8, 30), 580, 22),
    Figure("Employment Change", "thousand", HIGH, time(8, 30), 2_100, 1_900),
    Figure("Average Earnings", "% on year", MEDIUM, time(8, 30), 310, 30),
    Figure("CPI", "% on year", HIGH, time(8, 30), 240, 28),
    Figure("Core CPI", "% on year", HIGH, time(8, 30), 220, 16),
    Figure("Producer Prices", "% on year", MEDIUM, time(8, 30), 260, 60),
    Figure("Import Prices", "% on year", LOW, time(8, 30), 180, 80),
    Figure("Retail Sales", "% on month", HIGH, time(8, 30), 30, 70),
    Figure("Industrial Production", "% on month", MEDIUM, time(9, 15), 20, 60),
    Figure("Manufacturing PMI", "index", HIGH, time(9, 0), 5_120, 120),
    Figure("Services PMI", "index", HIGH, time(9, 0), 5_260, 110),
    Figure("Consumer Confidence", "index", MEDIUM, time(10, 0), 9_800, 320),
    Figure("Business Climate", "index", MEDIUM, time(10, 0), 9_600, 240),
    Figure("Building Permits", "thousand", MEDIUM, time(8, 30), 14_000, 700),
    Figure("Housing Starts", "thousand", MEDIUM, time(8, 30), 13_500, 800),
    Figure("House Prices", "% on year", LOW, time(9, 0), 420, 40),
    Figure("Trade Balance", "bn", MEDIUM, time(8, 30), -400, 900),
    Figure("Current Account", "bn", MEDIUM, time(8, 30), -600, 1_100),
    Figure("Budget Balance", "bn", LOW, time(14, 0), -900, 1_400),
    Figure("Money Supply M3", "% on year", LOW, time(10, 0), 480, 40),
    Figure("Private Credit", "% on year", LOW, time(10, 0), 390, 30),
    Figure("Durable Goods Orders", "% on month", MEDIUM, time(8, 30), 40, 180),
    Figure("New Car Registrations", "thousand", LOW, time(8, 0), 9_000, 600),
    Figure("Interest Rate Decision", "%", HIGH, time(14, 0), 325, 13),
)
QUARTERLY = (
    Figure("GDP", "% on quarter", HIGH, time(8, 30), 50, 45),
    Figure("GDP Deflator", "% on quarter", MEDIUM, time(8, 30), 60, 25),
    Figure("Labour Costs", "% on quarter", MEDIUM, time(8, 30), 80, 25),
    Figure("Productivity", "% on quarter", LOW, time(8, 30), 40, 40),
    Figure("Capacity Utilisation", "%", MEDIUM, time(9, 15), 7_850, 60),
    Figure("Household Debt", "% of income", LOW, time(11, 0), 10_200, 90),
    Figure("Corporate Profits", "% on quarter", LOW, time(8, 30), 120, 210),
    Figure("Business Investment", "% on quarter", LOW, time(8, 30), 70, 160),
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


def synthetic_events(seed: int) -> Iterator[EconomicEvent]:
    """Yield unsaved events without end, the newest day first."""
    calendar, day = Calendar(seed), LAST_DAY
    while True:
        for series in calendar.due(day):
            yield series.release(day, calendar.draw)
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
    events = islice(synthetic_events(seed), standing, rows)
    added = 0
    while batch := list(islice(events, BATCH_ROWS)):
        EconomicEvent.objects.bulk_create(batch)
        added += len(batch)
        progress(standing + added)
    return added
