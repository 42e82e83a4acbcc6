"""Where the source stands, waiting for a store until it does too, and the replica of a model."""

import asyncio
import threading

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, transaction
from django.http import HttpResponse
from django.test import RequestFactory

import levada
from levada.changes import Position, SourcePosition
from levada.errors import ForeignPosition, NoReplica, NotCommitted, Timeout
from levada.log import open_log
from levada.middleware import COOKIE, ReadYourWrites
from levada.outbox.sources import open_source
from levada.reading import close_stores
from levada.relay import Relay
from levada.testing import drain
from tests.shop.models import Book, Customer, Order, Product, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "analytics"])


@pytest.fixture
def filled(levada_drain):
    """A store that has everything written so far, and nobody who carries more into it."""
    levada_drain()
    levada.reading.through = None
    yield
    close_stores()


def relay_all():
    source = open_source()
    relay = Relay(source, open_log())
    while relay.step():
        pass
    source.close()


def in_a_thread(work):
    """Run `work` in a thread of its own and close that thread's connections."""

    def run():
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_position_is_later_after_a_commit():
    source = open_source()
    before = levada.position()
    Product.objects.create(name="cork")
    after = levada.position()
    assert (before.source, after.source) == ("default", "default")
    assert source.covers(after.cursor, before)
    assert not source.covers(before.cursor, after)
    source.close()


def test_a_position_equals_the_one_the_source_itself_tells():
    Product.objects.create(name="cork")
    source = open_source()
    assert levada.position() == source.position()
    source.close()


def test_no_position_speaks_of_writes_that_are_not_committed():
    with transaction.atomic(), pytest.raises(NotCommitted, match="on_commit"):
        levada.position()
    seen = []
    with transaction.atomic():
        Product.objects.create(name="cork")
        transaction.on_commit(lambda: seen.append(levada.position()))
    assert seen == [levada.position()]


@pytest.mark.usefixtures("filled")
def test_waiting_ends_when_somebody_has_carried_the_change():
    Product.objects.create(name="cork")
    here = levada.position()
    thread = in_a_thread(lambda: drain(groups=()))
    reached = levada.wait_for("analytics", here, timeout_s=60)
    thread.join()
    assert levada.replica(Product).get().name == "cork"
    assert reached.covers(open_log().end("changes"))


@pytest.mark.usefixtures("filled")
def test_waiting_for_what_is_there_needs_nobody():
    here = levada.position()
    assert isinstance(levada.wait_for("analytics", here, timeout_s=0), Position)


@pytest.mark.usefixtures("filled")
def test_a_position_of_the_log_can_be_waited_for_too():
    end = open_log().end("changes")
    assert levada.wait_for("analytics", end, timeout_s=0) == end


@pytest.mark.usefixtures("filled")
def test_a_timeout_says_that_the_relay_is_behind():
    Product.objects.create(name="cork")
    with pytest.raises(Timeout, match="the relay has come to") as timeout:
        levada.wait_for("analytics", levada.position(), timeout_s=0)
    assert "levada status analytics" in str(timeout.value)


@pytest.mark.usefixtures("filled")
def test_a_timeout_says_how_far_the_store_is_behind():
    Product.objects.create(name="cork")
    Product.objects.create(name="bottle")
    relay_all()
    with pytest.raises(Timeout, match="it is 2 changes behind"):
        levada.wait_for("analytics", levada.position(), timeout_s=0)


@pytest.mark.usefixtures("filled")
def test_async_waiting_leaves_the_event_loop_to_others():
    """The change is carried by a task of the same loop: a blocked loop would time out."""

    async def main():
        await Product.objects.acreate(name="cork")
        here = await levada.aposition()
        started = asyncio.Event()

        async def carry():
            await started.wait()
            await asyncio.to_thread(in_a_thread(lambda: drain(groups=())).join)

        carrying = asyncio.create_task(carry())
        waiting = asyncio.create_task(levada.await_for("analytics", here, timeout_s=60))
        await asyncio.sleep(0)
        started.set()
        await carrying
        await waiting
        return await levada.replica(Product).acount()

    assert async_to_sync(main)() == 1


@pytest.mark.usefixtures("filled")
def test_async_waiting_times_out_as_well():
    async def main():
        await Product.objects.acreate(name="cork")
        await levada.await_for("analytics", await levada.aposition(), timeout_s=0)

    with pytest.raises(Timeout):
        async_to_sync(main)()


def test_async_positions_know_the_transaction_of_the_request():
    async def main():
        def inside():
            with transaction.atomic():
                return async_to_sync(levada.aposition)()

        return await sync_to_async(inside)()

    with pytest.raises(NotCommitted):
        async_to_sync(main)()


def test_positions_of_others_are_refused():
    with pytest.raises(ForeignPosition, match="captured on 'default'"):
        levada.wait_for("analytics", SourcePosition("elsewhere", "1"), timeout_s=0)
    with pytest.raises(ForeignPosition):
        levada.wait_for("analytics", Position("another", "changes", 1), timeout_s=0)


def test_only_stores_can_be_waited_for():
    with pytest.raises(NoReplica, match="these are: analytics"):
        levada.wait_for("default", levada.position())


def test_inside_a_transaction_on_the_store_waiting_is_refused():
    here = levada.position()
    with transaction.atomic(using="analytics"), pytest.raises(NotCommitted, match="Wait before"):
        levada.wait_for("analytics", here)


# The replica of a model.


def test_a_replica_leaves_out_what_was_never_replicated(levada_drain):
    Customer.objects.create(name="Ana", password="secret")
    Book.objects.create(name="Levadas", isbn="1", pages=3)
    levada_drain()
    customers = levada.replica(Customer)
    assert customers.db == "analytics"
    assert [customer.name for customer in customers] == ["Ana"]
    assert customers.get().get_deferred_fields() == {"password"}
    assert levada.replica(Book).get().name == "Levadas"


def test_a_model_without_a_replica_is_named():
    with pytest.raises(NoReplica, match=r"no store replicates shop\.Tag"):
        levada.replica(Tag)


def test_of_several_replicas_one_must_be_chosen(settings):
    replicate = {"analytics": ["shop.Order"], "second": ["shop.Order"]}
    settings.LEVADA = {**settings.LEVADA, "REPLICATE": replicate}
    with pytest.raises(NoReplica, match=r"replica\(Order, using='analytics'\)"):
        levada.replica(Order)
    assert levada.replica(Order, using="second").db == "second"
    with pytest.raises(NoReplica, match="'third' does not replicate"):
        levada.replica(Order, using="third")


# The middleware, on the real way.


def test_a_session_reads_from_the_replica_what_it_has_just_written(levada_drain):
    def write(request):
        Product.objects.create(name="cork")
        return HttpResponse()

    def read(request):
        return HttpResponse(",".join(levada.replica(Product).values_list("name", flat=True)))

    written = ReadYourWrites(write)(RequestFactory().post("/"))
    request = RequestFactory().get("/")
    request.COOKIES[COOKIE] = written.cookies[COOKIE].value
    answer = ReadYourWrites(read)(request)
    assert answer.content == b"cork"
    assert answer.cookies[COOKIE]["max-age"] == 0


@pytest.mark.usefixtures("filled")
def test_without_a_keeper_it_gets_what_there_is_and_is_told(settings, caplog):
    settings.LEVADA = {**settings.LEVADA, "READ_YOUR_WRITES_TIMEOUT_S": 0.01}

    def write_and_read(request):
        Product.objects.create(name="cork")
        return HttpResponse(str(levada.replica(Product).count()))

    answer = ReadYourWrites(write_and_read)(RequestFactory().post("/"))
    assert answer.content == b"0"
    assert answer.headers["Levada-Stale"] == "analytics"
    assert "analytics did not reach the position" in caplog.text
