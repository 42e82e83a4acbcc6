"""The Django app `channel`."""

from django.apps import AppConfig


class ChannelConfig(AppConfig):
    """The page and what it asks of Levada; it has no tables."""

    name = "almanac.channel"
    label = "channel"
    verbose_name = "The channel"
