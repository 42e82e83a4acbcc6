"""A database client that never heard of Django, writing outbox rows in transactions of its own."""

import sqlite3
import time

from django.db import connections

from levada.outbox.postgresql import psycopg

NOW = "2026-11-21T08:30:00.000000+00:00"


class Client:
    """One connection to the source database, in autocommit unless `begin()` was called."""

    def __init__(self, alias="default", dbname=None):
        django = connections[alias]
        self.vendor = django.vendor
        self.number = "NULL" if self.vendor == "sqlite" else "pg_current_xact_id()::text::bigint"
        if self.vendor == "sqlite":
            self.raw = sqlite3.connect(
                django.settings_dict["NAME"],
                timeout=60,
                isolation_level=None,
                check_same_thread=False,
            )
        else:
            params = {
                name: value
                for name, value in django.get_connection_params().items()
                if name in ("host", "port", "user", "password", "dbname")
            }
            if dbname:
                params["dbname"] = dbname
            self.raw = psycopg.connect(**params, autocommit=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.raw.close()

    def run(self, sql, params=()):
        return self.raw.execute(sql if self.vendor == "sqlite" else sql.replace("?", "%s"), params)

    def begin(self, *, numbered=False):
        """Begin a transaction; on SQLite it has a number only if `numbered`, as Django's have."""
        self.run("BEGIN IMMEDIATE" if self.vendor == "sqlite" else "BEGIN")
        if self.vendor == "sqlite":
            self.number = str(time.time_ns()) if numbered else "NULL"
        return self

    def commit(self):
        self.run("COMMIT")

    def rollback(self):
        self.run("ROLLBACK")

    def write(self, *afters, key="[1]", topic="changes"):
        """Insert one outbox row for each of `afters`; return the last one's id."""
        for after in afters:
            (found,) = self.run(
                "INSERT INTO levada_outbox (topic, label, op, key, before, after, fingerprint,"
                f" \"transaction\", changed_at) VALUES (?, 'shop.Order', 'u', ?, NULL, ?, 'f',"
                f" {self.number}, ?) RETURNING id",
                (topic, key, str(after), NOW),
            ).fetchone()
        return found
