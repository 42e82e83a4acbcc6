"""A whole channel for a test: source, relay, log, applier and a store of its own file."""

from __future__ import annotations

from levada.apply import Applier, rebuild, verify
from levada.log.memory import MemoryLog
from levada.outbox.sources import open_source
from levada.relay import Relay
from levada.stores.duckdb.connection import Connection
from levada.stores.duckdb.instance import Instance
from levada.stores.duckdb.store import DuckDBStore


class Channel:
    """The store's file is not the one of DATABASES: tests corrupt it as they like."""

    def __init__(self, path, log=None):
        self.instance = Instance(str(path), {}, {})
        self.root = self.instance.session().raw
        self.log = log or MemoryLog()
        self.source = open_source("default")
        self.relay = Relay(self.source, self.log)
        self.store = self.new_store()
        self.applier = Applier(self.store, self.log, self.source)

    def new_store(self):
        return DuckDBStore("analytics", Connection(self.instance.session))

    def relay_all(self):
        while self.relay.step():
            pass

    def drain(self):
        """Bring everything committed so far into the store."""
        self.relay_all()
        self.applier.step()
        while self.applier.step():
            pass
        assert self.store.position() == self.log.end("changes")

    def rebuild(self, labels=None, **options):
        return rebuild(
            "analytics", labels, store=self.new_store(), log=self.log, source=self.source,
            **({"pump": self.relay.step} | options),
        )  # fmt: skip

    def verify(self, labels=None, **options):
        return verify(
            "analytics", labels, store=self.new_store(), log=self.log, source=self.source, **options
        )

    def rows(self, sql, *params):
        return self.root.cursor().execute(sql, list(params)).fetchall()

    def close(self):
        self.source.close()
        self.instance.shut()
