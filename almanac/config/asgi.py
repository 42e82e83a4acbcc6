"""
The ASGI application: `uvicorn almanac.config.asgi:application`.

With ALMANAC_KEEPER=1 the keeper starts and stops with the server (the server
sends lifespan events; Django itself refuses them). Give uvicorn
`--timeout-graceful-shutdown 3`: an open page holds its stream for ever.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "almanac.config.settings")
django_application = get_asgi_application()

from django.conf import settings  # noqa: E402 (the apps must be loaded first)
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: E402

from almanac.channel import keeping  # noqa: E402
from almanac.channel.pulse import pulse  # noqa: E402
from almanac.channel.stream import stream  # noqa: E402

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

http_application = ASGIStaticFilesHandler(django_application)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the server's lifespan ourselves, leave requests to Django."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await http_application(scope, receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    """Run the keeper between the server's start and its stop, where the settings ask for it."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                if getattr(settings, "KEEPER", False):
                    await asyncio.to_thread(keeping.start)
            except Exception as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await asyncio.to_thread(close)
            await send({"type": "lifespan.shutdown.complete"})
            return


def close() -> None:
    """Let every open page go, and stop the keeper."""
    stream.close()
    pulse.stop()
    keeping.stop()
