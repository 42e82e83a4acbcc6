"""What the middleware remembers, when it waits, and what a change says of who made it."""

import asyncio
import json

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection, connections, transaction
from django.http import HttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from levada import middleware
from levada.changes import SourcePosition
from levada.errors import ForeignPosition, Timeout
from levada.middleware import COOKIE, ActorContext, ReadYourWrites, is_write
from levada.models import Outbox
from tests.shop.models import Product, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "analytics"])


class Waits(list):
    """What was waited for, and an error to raise instead of a success."""

    error = None

    def __call__(self, alias, position, timeout_s):
        self.append((alias, position))
        if self.error:
            raise self.error


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    waits = Waits()
    monkeypatch.setattr(middleware, "wait_for", waits)
    return waits


def read_replica():
    with connections["analytics"].cursor() as cursor:
        cursor.execute("SELECT 1")


def ask(view, *, method="GET", cookie=None):
    """Send one request through ReadYourWrites to `view`; return the response."""
    request = RequestFactory().generic(method, "/")
    if cookie:
        request.COOKIES[COOKIE] = cookie

    def get_response(request):
        view()
        return HttpResponse()

    return ReadYourWrites(get_response)(request)


def cookie_of(response):
    return response.cookies[COOKIE].value


def test_a_request_after_a_write_waits_for_it_before_it_reads_a_replica(waits):
    written = ask(lambda: Tag.objects.create(name="new"))
    read = ask(read_replica, cookie=cookie_of(written))
    ((alias, position),) = waits
    assert alias == "analytics"
    assert position.source == "default"
    assert read.cookies[COOKIE]["max-age"] == 0  # every store has shown it: nothing to remember


def test_a_request_that_reads_no_replica_waits_for_nothing_and_keeps_its_cookie(waits):
    cookie = cookie_of(ask(lambda: Tag.objects.create(name="new")))
    response = ask(lambda: Tag.objects.count(), cookie=cookie)
    assert waits == []
    assert COOKIE not in response.cookies


def test_several_reads_of_one_request_wait_once(waits):
    cookie = cookie_of(ask(lambda: Tag.objects.create(name="new")))
    ask(lambda: [read_replica() for _ in range(3)], cookie=cookie)
    assert len(waits) == 1


def test_a_request_that_wrote_nothing_sets_no_cookie():
    assert COOKIE not in ask(lambda: Tag.objects.count()).cookies


def test_a_post_is_remembered_even_if_no_statement_looked_like_a_write():
    assert COOKIE in ask(lambda: None, method="POST").cookies


def test_a_read_after_a_write_of_the_same_request_waits(waits):
    def view():
        Tag.objects.create(name="new")
        read_replica()

    ask(view)
    assert len(waits) == 1


def test_a_read_inside_the_transaction_of_the_write_cannot_wait_for_it(waits):
    def view():
        with transaction.atomic():
            Tag.objects.create(name="new")
            read_replica()

    response = ask(view)
    assert waits == []
    assert COOKIE in response.cookies


def test_a_forged_cookie_is_ignored(waits):
    ask(read_replica, cookie="WyJkZWZhdWx0IiwiOTk5Il0:forged")
    assert waits == []


def test_a_cookie_of_a_source_that_was_replaced_is_deleted(waits):
    cookie = cookie_of(ask(lambda: Tag.objects.create(name="new")))
    waits.error = ForeignPosition("another")
    response = ask(read_replica, cookie=cookie)
    assert response.cookies[COOKIE]["max-age"] == 0


def test_a_replica_that_is_late_is_served_with_a_header_that_says_so(waits, caplog):
    cookie = cookie_of(ask(lambda: Tag.objects.create(name="new")))
    waits.error = Timeout("41 changes behind")
    response = ask(lambda: [read_replica(), read_replica()], cookie=cookie)
    assert response.headers["Levada-Stale"] == "analytics"
    assert len(waits) == 1
    assert "41 changes behind" in caplog.text
    assert COOKIE not in response.cookies  # kept: the next request tries again


def test_a_late_replica_raises_where_the_settings_say_so(waits, settings):
    settings.LEVADA = {**settings.LEVADA, "ON_STALE_READ": "raise"}
    cookie = cookie_of(ask(lambda: Tag.objects.create(name="new")))
    waits.error = Timeout("41 changes behind")
    with pytest.raises(Timeout):
        ask(read_replica, cookie=cookie)


def test_the_cookie_lives_under_the_rules_of_the_session_cookie(settings):
    settings.SESSION_COOKIE_SECURE = True
    settings.SESSION_COOKIE_SAMESITE = "Strict"
    cookie = ask(lambda: Tag.objects.create(name="new")).cookies[COOKIE]
    assert cookie["secure"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"


def test_outside_a_request_nothing_waits(waits):
    ask(lambda: Tag.objects.create(name="new"))
    read_replica()
    assert waits == []


def test_async_views_are_watched_as_sync_ones_are(waits):
    async def view(request):
        await Tag.objects.acreate(name=f"new-{request.path}")
        await sync_to_async(read_replica)()
        return HttpResponse()

    async def main():
        return await ReadYourWrites(view)(AsyncRequestFactory().get("/"))

    response = async_to_sync(main)()
    assert len(waits) == 1
    assert COOKIE in response.cookies
    Tag.objects.all().delete()


def test_requests_at_the_same_time_do_not_share_what_they_remember():
    async def view(request):
        if request.path == "/write":
            await Tag.objects.acreate(name="new")
        await asyncio.sleep(0)
        return HttpResponse()

    async def main():
        asked = ReadYourWrites(view)
        factory = AsyncRequestFactory()
        return await asyncio.gather(asked(factory.get("/write")), asked(factory.get("/read")))

    written, read = async_to_sync(main)()
    assert COOKIE in written.cookies
    assert COOKIE not in read.cookies


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ("INSERT INTO t VALUES (1)", True),
        ("  update t set a = 1", True),
        ("WITH x AS (DELETE FROM t RETURNING 1) SELECT 1", True),
        ("CALL housekeeping()", True),
        ("SELECT 1", False),
        ("(SELECT 1) UNION (SELECT 2)", False),
        ("SAVEPOINT s", False),
        ("COMMIT;", False),
        ("", False),
    ],
)
def test_in_doubt_a_statement_is_a_write(sql, writes):
    assert is_write(sql) is writes


# Who acts.


def contexts():
    return [
        json.loads(context) if context else None
        for context in Outbox.objects.filter(topic="changes")
        .order_by("id")
        .values_list("context", flat=True)
    ]


@pytest.fixture
def outbox():
    """An outbox that holds nothing of earlier tests."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM levada_outbox")


def change_something(request):
    Product.objects.create(name="cork")
    return HttpResponse()


@pytest.mark.usefixtures("outbox")
def test_changes_carry_the_users_name_and_the_requests_id():
    request = RequestFactory().get("/", headers={"X-Request-ID": "req-7"})
    request.user = User(username="ana")
    ActorContext(change_something)(request)
    Product.objects.create(name="outside")
    assert contexts() == [{"actor": "ana", "request_id": "req-7"}, None]


@pytest.mark.usefixtures("outbox")
@pytest.mark.parametrize("given", ["", "x" * 101, "two\nlines"])
def test_an_unsound_request_id_is_replaced(given):
    request = RequestFactory().get("/", headers={"X-Request-ID": given})
    request.user = AnonymousUser()
    ActorContext(change_something)(request)
    (context,) = contexts()
    assert context == {"request_id": request.levada_request_id}
    assert len(request.levada_request_id) == 32


@pytest.mark.usefixtures("outbox")
def test_an_async_views_changes_carry_them_as_well():
    async def view(request):
        await Product.objects.acreate(name="cork")
        return HttpResponse()

    async def auser():
        return User(username="ana")

    async def main():
        request = AsyncRequestFactory().get("/", headers={"X-Request-ID": "req-8"})
        request.auser = auser
        return await ActorContext(view)(request)

    async_to_sync(main)()
    assert contexts() == [{"actor": "ana", "request_id": "req-8"}]


def test_a_position_travels_unchanged(rf):
    response = HttpResponse()
    seen = SourcePosition("default", "10:" + ",".join(map(str, range(10, 900))))
    middleware.write_cookie(response, seen)
    request = rf.get("/")
    request.COOKIES[COOKIE] = cookie_of(response)
    assert len(cookie_of(response)) < 4000
    assert middleware.read_cookie(request) == seen
