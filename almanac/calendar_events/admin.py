"""The calendar in the admin."""

from django.contrib import admin

from .models import EconomicEvent


@admin.register(EconomicEvent)
class EconomicEventAdmin(admin.ModelAdmin):
    """Browse by date, narrow by country and source."""

    list_display = ("date", "time", "country", "event_name", "importance", "actual", "source")
    list_filter = ("importance", "status", "source")
    search_fields = ("event_name", "country")
    date_hierarchy = "date"
    show_full_result_count = False  # counting millions of rows twice a page helps nobody
