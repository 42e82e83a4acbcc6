"""
Settings of the reference project; the environment says what differs from place to place.

    ALMANAC_DATA        folder of the databases and the log        .levada-demo
    DATABASE_URL        postgresql://user@host:port/name           a SQLite file in that folder
    ALMANAC_KEEPER      1: the web process runs the keeper too     0
    ALMANAC_DEMO        1: the page may delete the replica         0
    ALMANAC_HOSTS       host names it answers to, by comma         this machine's own
    ALMANAC_SECRET_KEY  keeps logins valid over a restart          drawn at each start
"""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

DATA = Path(os.environ.get("ALMANAC_DATA", ".levada-demo")).resolve()
KEEPER = os.environ.get("ALMANAC_KEEPER") == "1"
DEMO = os.environ.get("ALMANAC_DEMO") == "1"


def source_database(url: str) -> dict:
    """Return Django's settings for the source database at `url`, SQLite where there is none."""
    if not url:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA / "almanac.sqlite3",
            "OPTIONS": {
                # Readers never wait for the writer, nor the writer for them.
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                # A transaction that reads before it writes would otherwise fail, not wait.
                "transaction_mode": "IMMEDIATE",
                "timeout": 30,
            },
        }
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise ImproperlyConfigured(
            f"DATABASE_URL begins with {parts.scheme!r}. Write postgresql://user@host:port/name, "
            f"or unset it to use SQLite."
        )
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
    }


SECRET_KEY = os.environ.get("ALMANAC_SECRET_KEY") or get_random_secret_key()
ALLOWED_HOSTS = os.environ.get("ALMANAC_HOSTS", "127.0.0.1,localhost,[::1]").split(",")
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "levada",
    "almanac.calendar_events",
    "almanac.channel",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "almanac.config.security.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
ROOT_URLCONF = "almanac.config.urls"
ASGI_APPLICATION = "almanac.config.asgi.application"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-gb"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": source_database(os.environ.get("DATABASE_URL", "")),
    "analytics": {"ENGINE": "levada.stores.duckdb", "NAME": DATA / "analytics.duckdb"},
}
LEVADA = {
    "REPLICATE": {"analytics": ["calendar_events.EconomicEvent"]},
    "LOG": {"NAME": DATA / "levada-log.sqlite3"},
}
