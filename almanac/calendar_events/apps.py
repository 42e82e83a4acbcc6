"""The Django app `calendar_events`."""

from django.apps import AppConfig


class CalendarEventsConfig(AppConfig):
    """Holds `EconomicEvent`, its importer and its synthetic generator."""

    name = "almanac.calendar_events"
    label = "calendar_events"
    verbose_name = "Economic calendar"
    default_auto_field = "django.db.models.BigAutoField"
