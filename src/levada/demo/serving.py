"""Serve the reference project on 127.0.0.1 in the main thread, and stop on Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import urllib.request
import webbrowser
from collections.abc import Callable
from types import FrameType

import uvicorn

from .options import DEFAULT_PORT

HOST = "127.0.0.1"
TRIED_PORTS = 20
GRACE_S = 3


class PortTaken(Exception):
    """Somebody else listens where the demo was told to."""


def bind(port: int | None) -> socket.socket:
    """
    Listen at `port` on HOST; for None at the default port or one of the next.

    Who asks before the server is up waits for it. Raises PortTaken with what
    to type next.
    """
    wanted = range(DEFAULT_PORT, DEFAULT_PORT + TRIED_PORTS) if port is None else (port,)
    for each in wanted:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, each))
            listener.listen()  # at once: two sockets that only bind can have one port
        except OSError:
            listener.close()
        else:
            return listener
    raise PortTaken(
        f"Port {port} of {HOST} is taken. Choose another with --port, or 0 for any free one."
        if port is not None
        else f"Ports {wanted[0]} to {wanted[-1]} of {HOST} are all taken. Choose one with --port."
    )


def address(listener: socket.socket) -> str:
    """Return the URL that `listener` answers."""
    return f"http://{HOST}:{listener.getsockname()[1]}/"


class Server(uvicorn.Server):
    """
    uvicorn, which lets go of the pages' open streams when it is told to stop.

    ready: called once requests are answered.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self.ready = ready
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        if self.started:
            self.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        from almanac.channel.stream import stream

        if self.loop is not None:
            # Not from here: the signal may have interrupted a holder of the stream's lock.
            self.loop.call_soon_threadsafe(stream.close)
        super().handle_exit(sig, frame)


def make_server(ready: Callable[[], object]) -> Server:
    """Return a server of the reference project's ASGI application."""
    config = uvicorn.Config(
        "almanac.config.asgi:application",
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=GRACE_S,
    )
    return Server(config, ready)


def serve(listener: socket.socket, ready: Callable[[], object]) -> None:
    """
    Serve until SIGINT or SIGTERM; return when everything has stopped.

    ready: called once requests are answered.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        make_server(ready).run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn repeats the signal once it has stopped
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
        listener.close()


def answers(listener: socket.socket) -> bool:
    """Serve from a thread just long enough to ask for the page; say whether it came."""
    up = threading.Event()
    server = make_server(up.set)
    thread = threading.Thread(target=server.run, args=([listener],), name="demo server")
    thread.start()
    try:
        while not up.wait(0.05):
            if not thread.is_alive():
                return False
        with urllib.request.urlopen(address(listener), timeout=60) as response:
            return response.status == 200 and b"The channel" in response.read()
    except OSError:
        return False
    finally:
        server.should_exit = True
        thread.join()


def open_browser(url: str) -> None:
    """Open `url` where there is a browser; a thread, as some browsers are slow to start."""
    if has_browser():
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def has_browser() -> bool:
    """Say whether a browser with a window can be opened; a text browser would take the terminal."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
