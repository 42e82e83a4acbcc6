"""One release of one economic figure."""

from django.db import models
from django.db.models import Q


class Importance(models.IntegerChoices):
    """How much a release moves markets, as calendars print it."""

    LOW = 1, "low"
    MEDIUM = 2, "medium"
    HIGH = 3, "high"


class Status(models.TextChoices):
    """What has happened to the release so far."""

    SCHEDULED = "scheduled", "scheduled"
    RELEASED = "released", "released"
    REVISED = "revised", "revised"
    CANCELLED = "cancelled", "cancelled"


class DateBasis(models.TextChoices):
    """What `date` means: not every history says when a figure was published."""

    RELEASE = "release", "day of the release"
    PERIOD_END = "period_end", "last day of the period"


class EconomicEvent(models.Model):
    """
    One figure of one country at one date.

    date, time: kept apart, because many releases have a day and no clock
        time; the time is local to the country. date_basis says whether the
        date is the release's or, where the source does not tell, the last day
        of the period measured.
    country: ISO 3166 alpha-2; EA is the euro area.
    actual, forecast, previous: in `unit`; null where unknown, never guessed.
    source: the dataset the row came from; `synthetic` for generated rows and
        `form` for what a visitor writes.

    Two countries release figures of one name at one minute, so the country is
    in the key. SQL holds two NULL times for different, so rows without a time
    have a constraint of their own.
    """

    date = models.DateField()
    time = models.TimeField(null=True, blank=True)
    event_name = models.CharField(max_length=120)
    country = models.CharField(max_length=2)
    importance = models.PositiveSmallIntegerField(
        choices=Importance.choices, default=Importance.MEDIUM
    )
    actual = models.DecimalField(max_digits=15, decimal_places=4, null=True, blank=True)
    forecast = models.DecimalField(max_digits=15, decimal_places=4, null=True, blank=True)
    previous = models.DecimalField(max_digits=15, decimal_places=4, null=True, blank=True)
    unit = models.CharField(max_length=60, blank=True, default="")
    period = models.CharField(max_length=10, blank=True, default="", help_text="2009Q3, 2008-10")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.SCHEDULED)
    date_basis = models.CharField(
        max_length=10, choices=DateBasis.choices, default=DateBasis.RELEASE
    )
    source = models.CharField(max_length=40, default="form")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["date", "time", "country", "event_name"],
                name="economic_event_once",
            ),
            models.UniqueConstraint(
                fields=["date", "country", "event_name"],
                condition=Q(time__isnull=True),
                name="economic_event_once_untimed",
                violation_error_message="This event already exists.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.date} {self.country} {self.event_name}"
