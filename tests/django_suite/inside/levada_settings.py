"""Settings for Django's `runtests.py`: its own, but with DuckDB in memory as both databases."""

from test_sqlite import *  # noqa: F403 - the release's settings, which its tests count on

DATABASES = {
    "default": {"ENGINE": "levada.stores.duckdb", "NAME": ":memory:"},
    "other": {"ENGINE": "levada.stores.duckdb", "NAME": ":memory:"},
}
TEST_RUNNER = "levada_recorder.RecordingRunner"
