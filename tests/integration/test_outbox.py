"""The outbox: messages that commit with the data, and databases that only one thread can see."""

import datetime
import decimal
import json
import uuid

import pytest
from django.db import connection, connections, transaction

from levada.capture import context
from levada.errors import InvalidMessage, UnsupportedVendor
from levada.log.memory import MemoryLog
from levada.outbox import publish
from levada.outbox.inside import InsideSource
from levada.outbox.models import Outbox
from levada.outbox.sources import in_memory, open_source
from levada.relay import Relay


@pytest.mark.django_db
class TestPublish:
    def test_a_message_is_one_row_of_the_outbox(self):
        publish("orders.paid", {"id": 1, "name": "é🙂"}, key=[1, "a"])
        row = Outbox.objects.get()
        assert (row.topic, row.op, row.label, row.before) == ("orders.paid", "m", "", None)
        assert json.loads(row.after) == {"id": 1, "name": "é🙂"}
        assert row.key == '[1, "a"]'
        assert datetime.datetime.fromisoformat(row.changed_at).utcoffset() == datetime.timedelta(0)

    def test_a_rolled_back_message_was_never_there(self):
        with transaction.atomic():
            publish("mails", 1)
            transaction.set_rollback(True)
        assert not Outbox.objects.exists()

    def test_what_django_encodes_can_be_a_payload(self):
        payload = {
            "price": decimal.Decimal("12.50"),
            "day": datetime.date(2026, 11, 21),
            "at": datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC),
            "span": datetime.timedelta(hours=1),
            "ident": uuid.UUID(int=1),
        }
        publish("t", payload)
        assert json.loads(Outbox.objects.get().after)["price"] == "12.50"

    def test_a_lone_surrogate_travels_escaped(self):
        publish("t", "\ud800")
        assert Outbox.objects.get().after == '"\\ud800"'

    @pytest.mark.parametrize(
        "topic", ["", "changes", "white space", "a/b", "a:b", "é", "x" * 201, None, 7]
    )
    def test_an_impossible_topic_is_refused(self, topic):
        with pytest.raises(InvalidMessage):
            publish(topic, 1)
        assert not Outbox.objects.exists()

    @pytest.mark.parametrize("payload", [float("nan"), float("inf"), object(), {1, 2}, {(1,): 2}])
    def test_an_impossible_payload_or_key_is_refused(self, payload):
        with pytest.raises(InvalidMessage, match="payload of a message to 't'"):
            publish("t", payload)
        with pytest.raises(InvalidMessage, match="key of a message"):
            publish("t", 1, key=payload)
        assert not Outbox.objects.exists()

    def test_another_vendor_is_refused(self, monkeypatch):
        monkeypatch.setattr(connections["default"], "vendor", "oracle")
        with pytest.raises(UnsupportedVendor, match="oracle"):
            publish("t", 1)
        with pytest.raises(UnsupportedVendor, match="oracle"):
            open_source("default")

    def test_a_row_knows_its_transaction(self):
        publish("t", 1)
        publish("t", 2)
        (number,) = {row.transaction for row in Outbox.objects.all()}
        assert isinstance(number, int)

    def test_a_message_carries_the_context(self):
        with context(actor="anna", request_id="r-7"):
            publish("t", 1)
        assert json.loads(Outbox.objects.get().context) == {"actor": "anna", "request_id": "r-7"}


@pytest.mark.django_db
class TestInside:
    """Inside a TestCase's transaction, which no other connection ever sees."""

    def test_uncommitted_rows_can_be_relayed_through_djangos_connection(self):
        log, source = MemoryLog(), open_source("default", inside=True)
        relay = Relay(source, log, batch_rows=2)
        for n in range(5):
            publish("t", n)
        while relay.step():
            pass
        assert [r.after for r in log.read(log.beginning("t"), 10)] == ["0", "1", "2", "3", "4"]
        assert not Outbox.objects.exists()
        assert source.covers(log.cursor("default"), source.position())
        assert source.size() == 0

    def test_its_snapshot_is_what_the_thread_sees(self):
        source = open_source("default", inside=True)
        publish("t", 1)
        publish("t", 2)
        with source.snapshot() as snapshot:
            chunks = snapshot.chunks("SELECT after FROM levada_outbox ORDER BY id", chunk_rows=1)
            assert list(chunks) == [[("1",)], [("2",)]]
            rows = Relay(source, MemoryLog()).source.fetch(None, 10).rows
            assert len(rows) == 2
            assert int(snapshot.position.cursor) >= rows[-1][8]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (":memory:", True),
        ("file:memorydb_default?mode=memory&cache=shared", True),
        ("file::memory:?cache=shared", True),
        ("file:/data/db.sqlite3?cache=private", False),
        ("/data/memory", False),
    ],
)
def test_a_database_in_memory_is_known_by_its_name(name, expected):
    assert in_memory(name) is expected


@pytest.mark.sqlite
def test_a_database_in_memory_is_read_through_djangos_connection(monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "NAME", ":memory:")
    assert isinstance(open_source("default"), InsideSource)
