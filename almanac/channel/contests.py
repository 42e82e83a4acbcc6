"""
The queries of the race: ordinary querysets, each run on the source and on the replica.

Every answer is exact on both sides (counts, sums of whole numbers, dates,
stored values), so equal means equal. SQLite adds decimals as floats, which is
why no contest sums them. Two contests are ones the source should win: an
index finds a few rows sooner than a column scan does.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from django.db.models import Count, F, Max, Min, Q, QuerySet, Sum, Window
from django.db.models.functions import ExtractYear, Rank, RowNumber, TruncMonth

from almanac.calendar_events.models import EconomicEvent

Queryset = QuerySet[EconomicEvent]


@dataclass(frozen=True, slots=True)
class Contest:
    """
    One question, asked of both databases.

    ask: takes `EconomicEvent.objects.using(alias)` and returns a queryset of
    values, ordered so that its answer is one list and no other.
    """

    slug: str
    question: str
    ask: Callable[[Queryset], QuerySet]

    @property
    def code(self) -> str:
        """The queryset as it is written in this file: what is shown is what runs."""
        lines = textwrap.dedent(inspect.getsource(self.ask)).splitlines()
        body = textwrap.dedent("\n".join(lines[1:]))
        return body.removeprefix("return ").strip()


def by_country_and_year(events: Queryset) -> QuerySet:
    return (
        events.values("country", year=ExtractYear("date"))
        .annotate(releases=Count("id"), weight=Sum("importance"))
        .order_by("country", "year")
    )


def surprises(events: Queryset) -> QuerySet:
    return (
        events.values("event_name")
        .annotate(
            above=Count("id", filter=Q(actual__gt=F("forecast"))),
            below=Count("id", filter=Q(actual__lt=F("forecast"))),
        )
        .order_by("-above", "event_name")
    )


def distinct_days(events: Queryset) -> QuerySet:
    return (
        events.values("event_name")
        .annotate(days=Count("date", distinct=True), countries=Count("country", distinct=True))
        .order_by("event_name")
    )


def busiest_countries_each_month(events: Queryset) -> QuerySet:
    return (
        events.values("country", month=TruncMonth("date"))
        .annotate(releases=Count("id"))
        .annotate(place=Window(Rank(), partition_by="month", order_by=F("releases").desc()))
        .order_by("month", "place", "country")
    )


def newest_of_every_series(events: Queryset) -> QuerySet:
    return (
        events.annotate(
            place=Window(
                RowNumber(),
                partition_by=["country", "event_name"],
                order_by=[F("date").desc(), F("id").desc()],
            )
        )
        .filter(place=1)
        .values("country", "event_name", "date", "actual")
        .order_by("country", "event_name")
    )


def extremes(events: Queryset) -> QuerySet:
    return (
        events.filter(event_name__icontains="rate")
        .values("country", "event_name")
        .annotate(lowest=Min("actual"), highest=Max("actual"), releases=Count("id"))
        .order_by("country", "event_name")
    )


def one_event_by_key(events: Queryset) -> QuerySet:
    return events.filter(pk=1_000).values()


def one_day(events: Queryset) -> QuerySet:
    return (
        events.filter(date=date(2009, 6, 30))
        .values("time", "country", "event_name", "actual")
        .order_by("country", "event_name", "time")
    )


CONTESTS: dict[str, Contest] = {
    contest.slug: contest
    for contest in (
        Contest("years", "Releases by country and year", by_country_and_year),
        Contest("surprises", "Better or worse than forecast", surprises),
        Contest("days", "Distinct days and countries of each figure", distinct_days),
        Contest("busiest", "Busiest countries, ranked each month", busiest_countries_each_month),
        Contest("newest", "The newest release of every series", newest_of_every_series),
        Contest("extremes", "Lowest and highest of every rate", extremes),
        Contest("key", "One event by its primary key", one_event_by_key),
        Contest("day", "One day of the calendar, by index", one_day),
    )
}
"""Every contest by its slug, in the order of the page; the last two are the source's to win."""
