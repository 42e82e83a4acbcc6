"""
/healthz and /metrics over HTTP, on 127.0.0.1 only.

/healthz answers from memory, 200 when every part is up and 503 when one is
not, so that a hanging database cannot make a probe hang. /metrics asks log,
source and stores at each scrape. Both are GET or HEAD; anything else is 404.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from django.db import connections

from . import metrics
from .supervisor import PartStatus

logger = logging.getLogger("levada.keeper.health")

HOST = "127.0.0.1"


def health(parts: Sequence[PartStatus]) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and body that `parts` deserve; no part at all is unhealthy."""
    ok = bool(parts) and all(part.up for part in parts)
    body = {
        "status": "ok" if ok else "failing",
        "parts": {
            part.name: {
                "state": part.state,
                "for_s": round(part.since_s, 3),
                "restarts": part.restarts,
                "error": part.error,
            }
            for part in parts
        },
    }
    return (200 if ok else 503), body


class HealthServer:
    """
    Serves two functions: `parts` for /healthz, `exposition` (text) for /metrics.

    port: 0 takes a free one; `self.port` says which. Raises OSError where the
    port is taken.
    """

    def __init__(
        self,
        port: int,
        *,
        parts: Callable[[], Sequence[PartStatus]],
        exposition: Callable[[], str],
    ) -> None:
        self._server = ThreadingHTTPServer((HOST, port), _handler(parts, exposition))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="levada health",
            daemon=True,
        )

    def start(self) -> None:
        """Answer in a thread of its own."""
        self._thread.start()
        logger.info("http://%s:%d/healthz and /metrics", HOST, self.port)

    def stop(self) -> None:
        """Stop answering and give the port back."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _handler(
    parts: Callable[[], Sequence[PartStatus]], exposition: Callable[[], str]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "levada"
        sys_version = ""
        timeout = 10  # s; a client that connects and says nothing must not keep its thread

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            status, content_type, body = self._page(self.path.partition("?")[0])
            payload = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(payload)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if with_body:
                self.wfile.write(payload)

        def _page(self, path: str) -> tuple[int, str, str]:
            if path == "/healthz":
                status, body = health(parts())
                return status, "application/json", json.dumps(body) + "\n"
            if path == "/metrics":
                return self._metrics()
            return 404, "text/plain; charset=utf-8", "Here are /healthz and /metrics.\n"

        def _metrics(self) -> tuple[int, str, str]:
            try:
                return 200, metrics.CONTENT_TYPE, exposition()
            except Exception as error:
                logger.exception("metrics could not be read")
                return 500, "text/plain; charset=utf-8", f"{error}\n"
            finally:
                connections.close_all()  # this thread ends with the request

        def log_message(self, format: str, *args: Any) -> None:
            logger.debug(format, *args)

    return Handler
