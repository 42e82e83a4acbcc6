"""
Settings of the test suite.

LEVADA_TEST_SOURCE chooses the source database: nothing for SQLite, or
postgresql://user@host:port/name. The suite runs once for each.
"""

import os
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

SOURCE_URL = os.environ.get("LEVADA_TEST_SOURCE", "")
WORK_DIR = Path(os.environ.get("LEVADA_TEST_DIR") or tempfile.mkdtemp(prefix="levada-tests-"))


def source_database() -> dict:
    if not SOURCE_URL:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": WORK_DIR / "source.sqlite3",
            "OPTIONS": {
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                "transaction_mode": "IMMEDIATE",
                "timeout": 30,
            },
            "TEST": {"NAME": WORK_DIR / "test-source.sqlite3"},
        }
    url = urlsplit(SOURCE_URL)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.lstrip("/"),
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": url.hostname,
        "PORT": url.port or 5432,
        "TEST": {"NAME": f"test_{url.path.lstrip('/')}"},
    }


SECRET_KEY = "tests only"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "levada",
    "tests.shop",
    "almanac.calendar_events",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.urls"
DATABASES = {
    "default": source_database(),
    "analytics": {
        "ENGINE": "levada.stores.duckdb",
        "NAME": WORK_DIR / "analytics.duckdb",
        "TEST": {"NAME": WORK_DIR / "test-analytics.duckdb"},
    },
}
LEVADA = {
    "REPLICATE": {
        "analytics": {
            "shop.Customer": {"exclude": ["password"]},
            "shop.Order": {},
            "shop.OrderLine": {},
            "shop.Product": {},
            "shop.Book": {},
            "shop.Everything": {},
            "shop.Seat": {},
        }
    },
    "LOG": {"NAME": WORK_DIR / "levada-log.sqlite3"},
}
if os.environ.get("LEVADA_TEST_BATCH_ROWS"):
    LEVADA["BATCH_ROWS"] = int(os.environ["LEVADA_TEST_BATCH_ROWS"])
