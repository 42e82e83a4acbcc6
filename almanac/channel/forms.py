"""The form that writes one event."""

from __future__ import annotations

from django import forms
from django.utils import timezone

from almanac.calendar_events.models import EconomicEvent, Importance, Status

COUNTRIES = (
    ("PT", "Portugal"),
    ("BR", "Brazil"),
    ("DE", "Germany"),
    ("EA", "Euro area"),
    ("ES", "Spain"),
    ("FR", "France"),
    ("GB", "United Kingdom"),
    ("JP", "Japan"),
    ("US", "United States"),
)


class EventForm(forms.ModelForm):
    """What a visitor may say about an event; the rest has its default."""

    country = forms.ChoiceField(choices=COUNTRIES)
    importance = forms.TypedChoiceField(choices=Importance.choices, coerce=int)

    class Meta:
        model = EconomicEvent
        fields = ["event_name", "country", "date", "time", "importance", "actual", "forecast"]
        widgets = {
            "event_name": forms.TextInput(attrs={"autocomplete": "off"}),
            "date": forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
            "time": forms.TimeInput(attrs={"type": "time", "step": "1"}, format="%H:%M:%S"),
            "actual": forms.NumberInput(attrs={"step": "0.0001", "inputmode": "decimal"}),
            "forecast": forms.NumberInput(attrs={"step": "0.0001", "inputmode": "decimal"}),
        }

    def event(self) -> EconomicEvent:
        """Return the unsaved event of a valid form."""
        event: EconomicEvent = self.save(commit=False)
        event.status = Status.SCHEDULED if event.actual is None else Status.RELEASED
        event.source = "form"
        return event


def blank_form() -> EventForm:
    """Return a form that can be sent as it is: an event of this very second."""
    now = timezone.now()
    return EventForm(
        initial={
            "event_name": "Madeira Wine Exports",
            "country": "PT",
            "date": now.date(),
            "time": now.time().replace(microsecond=0),
            "importance": Importance.MEDIUM,
            "actual": "4.82",
        }
    )
