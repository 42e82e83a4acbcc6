"""Settings for Django's `runtests.py`: DuckDB in memory as both of its databases."""

DATABASES = {
    "default": {"ENGINE": "levada.stores.duckdb", "NAME": ":memory:"},
    "other": {"ENGINE": "levada.stores.duckdb", "NAME": ":memory:"},
}
TEST_RUNNER = "levada_recorder.RecordingRunner"

# As in the suite's own settings for SQLite, which its tests count on.
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
