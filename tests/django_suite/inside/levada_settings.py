"""Settings for Django's `runtests.py`: DuckDB in memory as both of its databases."""

import django

DATABASES = {
    "default": {"ENGINE": "levada.stores.duckdb", "NAME": ":memory:"},
    "other": {"ENGINE": "levada.stores.duckdb", "NAME": ":memory:"},
}
TEST_RUNNER = "levada_recorder.RecordingRunner"

# As in the suite's own settings for SQLite, which its tests count on.
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if django.VERSION < (6, 0):  # later tests count on Django's own default
    DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
