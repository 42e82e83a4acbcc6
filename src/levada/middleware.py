"""
Middleware: a session reads its own writes from every store, and changes say who made them.

    MIDDLEWARE = [
        …
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "levada.middleware.ActorContext",
        "levada.middleware.ReadYourWrites",
    ]

Both work under WSGI and ASGI, for sync and async views.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings as django_settings
from django.core import signing
from django.db import connections
from django.db.backends.signals import connection_created
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from . import conf
from .capture import context
from .changes import SourcePosition
from .conf import settings
from .errors import ForeignPosition, Timeout
from .reading import in_transaction, position, wait_for

logger = logging.getLogger("levada.middleware")

COOKIE = "levada_position"
COOKIE_AGE_S = 900
"""A store that is further behind than this has other troubles than a session's own writes."""
STALE_HEADER = "Levada-Stale"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
READS = (
    "SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN", "COMMIT", "SET", "SHOW", "PRAGMA",
    "EXPLAIN", "VALUES", "FETCH", "DECLARE", "CLOSE",
)  # fmt: skip
"""First words of statements that change no row; every other statement counts as a write."""

GetResponse = Callable[[HttpRequest], Any]


class Session:
    """
    What one request knows of its session's writes.

    seen: the position the cookie brought, or of this request's own commits.
    wrote: this request wrote to the source since `seen` was taken.
    fresh: stores that show `seen`. stale: stores that did not in time.
    """

    def __init__(self, seen: SourcePosition | None) -> None:
        self.seen = seen
        self.wrote = False
        self.fresh: set[str] = set()
        self.stale: set[str] = set()
        self.foreign = False
        self.changed = False

    def remember(self) -> None:
        """Take the position after this request's writes, if it wrote and they are committed."""
        if self.wrote and not in_transaction(settings.SOURCE):
            self.seen = position()
            self.wrote = False
            self.changed = True
            self.fresh.clear()
            self.stale.clear()

    def before_read(self, alias: str) -> None:
        """Wait until the store `alias` shows what the session has written, at most once."""
        self.remember()
        if self.seen is None or alias in self.fresh or alias in self.stale:
            return
        self.fresh.add(alias)  # before the wait, whose own queries pass here again
        try:
            wait_for(alias, self.seen, timeout_s=settings.READ_YOUR_WRITES_TIMEOUT_S)
        except ForeignPosition:
            self.seen, self.foreign = None, True  # the source was replaced since the cookie was set
        except Timeout as error:
            self.fresh.discard(alias)
            self.stale.add(alias)
            if settings.ON_STALE_READ == "raise":
                raise
            logger.warning("%s", error, extra={"store": alias})


_session: ContextVar[Session | None] = ContextVar("levada_session", default=None)


def _watch(execute: Any, sql: str, params: Any, many: bool, wrapper_context: Any) -> Any:
    """Database instrumentation: note writes to the source, wait before reads of a store."""
    session = _session.get()
    if session is None:
        return execute(sql, params, many, wrapper_context)
    connection = wrapper_context["connection"]
    if connection.alias == settings.SOURCE:
        if not session.wrote and is_write(sql):
            session.wrote = True
    elif connection.alias in conf.store_aliases() and not in_transaction(connection.alias):
        session.before_read(connection.alias)
    return execute(sql, params, many, wrapper_context)


def is_write(sql: str) -> bool:
    """Say whether a statement may change rows; in doubt it does."""
    words = sql.lstrip(" \t\r\n(").split(None, 1)
    return bool(words) and words[0].rstrip(";").upper() not in READS


def _instrument(connection: Any, **kwargs: Any) -> None:
    # At the front: `connection.execute_wrapper()` blocks pop what is last.
    if _watch not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, _watch)


def _instrument_this_thread() -> None:
    for connection in connections.all(initialized_only=True):
        _instrument(connection)


class _Middleware:
    """What both share: one class for sync and async chains."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self.acall(request) if self.is_async else self.call(request)

    def call(self, request: HttpRequest) -> HttpResponseBase:
        raise NotImplementedError

    def acall(self, request: HttpRequest) -> Awaitable[HttpResponseBase]:
        raise NotImplementedError


class ReadYourWrites(_Middleware):
    """
    A request sees what its session has written before, whichever database it reads.

    After a request that wrote, the source's position travels in a signed
    cookie. Before the first query of a request on a store, the store is waited
    for, at most LEVADA["READ_YOUR_WRITES_TIMEOUT_S"]; a request that reads no
    store waits for nothing. What then is still missing is served with the
    header `Levada-Stale: <alias>`, or raised, by LEVADA["ON_STALE_READ"].
    """

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        connection_created.connect(_instrument, dispatch_uid="levada.middleware")
        _instrument_this_thread()

    def call(self, request: HttpRequest) -> HttpResponseBase:
        _instrument_this_thread()
        with self._session(request) as session:
            response = self.get_response(request)
            return self._finish(request, response, session)

    async def acall(self, request: HttpRequest) -> HttpResponseBase:
        # Queries run in another thread than this coroutine, on that thread's connections.
        await sync_to_async(_instrument_this_thread)()
        with self._session(request) as session:
            response = await self.get_response(request)
            return await sync_to_async(self._finish)(request, response, session)

    @contextmanager
    def _session(self, request: HttpRequest) -> Iterator[Session]:
        session = Session(read_cookie(request))
        token = _session.set(session)
        try:
            yield session
        finally:
            _session.reset(token)

    def _finish(
        self, request: HttpRequest, response: HttpResponseBase, session: Session
    ) -> HttpResponseBase:
        if session.stale:
            response.headers[STALE_HEADER] = ", ".join(sorted(session.stale))
        # A function called by SELECT may write unseen; who POSTs is asking for it.
        session.wrote = session.wrote or request.method not in SAFE_METHODS
        session.remember()
        if session.changed and session.seen:
            write_cookie(response, session.seen)
        elif COOKIE in request.COOKIES and self._is_done(session):
            response.delete_cookie(
                COOKIE,
                path=django_settings.SESSION_COOKIE_PATH,
                domain=django_settings.SESSION_COOKIE_DOMAIN,
                samesite=django_settings.SESSION_COOKIE_SAMESITE,
            )
        return response

    def _is_done(self, session: Session) -> bool:
        return session.foreign or session.fresh.issuperset(conf.store_aliases())


def read_cookie(request: HttpRequest) -> SourcePosition | None:
    """Return the position the request's cookie brings; None without one, or a forged one."""
    text = request.COOKIES.get(COOKIE)
    if not text:
        return None
    try:
        source, cursor = signing.loads(text, salt=COOKIE, max_age=COOKIE_AGE_S)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    return SourcePosition(source, cursor)


def write_cookie(response: HttpResponseBase, seen: SourcePosition) -> None:
    """Have the client bring `seen` back. Lives as the session cookie does, but not as long."""
    response.set_cookie(
        COOKIE,
        signing.dumps([seen.source, seen.cursor], salt=COOKIE, compress=True),
        max_age=COOKIE_AGE_S,
        path=django_settings.SESSION_COOKIE_PATH,
        domain=django_settings.SESSION_COOKIE_DOMAIN,
        secure=django_settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite=django_settings.SESSION_COOKIE_SAMESITE,
    )


class ActorContext(_Middleware):
    """
    Each change a request makes carries the user's name and the request's id.

    Place it after AuthenticationMiddleware. The id is taken from the header
    `X-Request-ID` where it is sound, else drawn, and stands in
    `request.levada_request_id`. Override `actor_of` to name users otherwise.
    """

    def call(self, request: HttpRequest) -> HttpResponseBase:
        with self._context(request, self.actor_of(getattr(request, "user", None))):
            response: HttpResponseBase = self.get_response(request)
            return response

    async def acall(self, request: HttpRequest) -> HttpResponseBase:
        user = await request.auser() if hasattr(request, "auser") else None
        with self._context(request, self.actor_of(user)):
            response: HttpResponseBase = await self.get_response(request)
            return response

    def actor_of(self, user: Any) -> str | None:
        """Return the name to write into the changes of `user`, None for nobody in particular."""
        if user is None or not user.is_authenticated:
            return None
        return str(user.get_username())

    def _context(self, request: HttpRequest, actor: str | None) -> Any:
        request_id = _request_id(request)
        request.levada_request_id = request_id  # type: ignore[attr-defined]
        return context(actor=actor, request_id=request_id)


def _request_id(request: HttpRequest) -> str:
    given = request.headers.get("X-Request-ID", "")
    return given if 0 < len(given) <= 100 and given.isprintable() else uuid.uuid4().hex
