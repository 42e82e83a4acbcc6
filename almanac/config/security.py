"""The response header that lets a page run this project's own scripts and styles, nothing else."""

from collections.abc import Callable

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""No inline script or style, no other origin, no frame. `data:` is the admin's icons."""


@sync_and_async_middleware
def ContentSecurityPolicy(get_response: Callable) -> Callable:
    """Send POLICY with every response."""

    if iscoroutinefunction(get_response):

        async def respond(request: HttpRequest) -> HttpResponseBase:
            response = await get_response(request)
            response.headers["Content-Security-Policy"] = POLICY
            return response

        return respond

    def respond_sync(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return respond_sync
