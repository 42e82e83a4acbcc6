"""Who is acting: the context that each captured change carries while a block runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_context: ContextVar[str | None] = ContextVar("levada_context", default=None)


@contextmanager
def context(*, actor: str | None = None, request_id: str | None = None) -> Iterator[None]:
    """
    Write `actor` and `request_id` into every change captured inside the block.

    Follows the current thread or asyncio task; an inner block adds to the
    outer one and wins where both speak. Only changes made through Django's
    connection to the source see it. A block costs nothing to code outside it.
    """
    given = {"actor": actor, "request_id": request_id}
    known = json.loads(_context.get() or "{}")
    known.update({name: str(value) for name, value in given.items() if value is not None})
    token = _context.set(json.dumps(known, ensure_ascii=False) if known else None)
    try:
        yield
    finally:
        _context.reset(token)


def current_context() -> str | None:
    """Return the surrounding context as the JSON text of the outbox, None without one."""
    return _context.get()
