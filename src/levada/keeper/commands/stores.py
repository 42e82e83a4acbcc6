"""Checking names that a person typed."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from ... import conf
from .failure import Failure


def known_store(alias: str, *, status: int = 1) -> str:
    """Return `alias` if REPLICATE fills it. Raises Failure with the stores there are."""
    aliases = conf.store_aliases()
    if alias not in aliases:
        raise Failure(
            f"{alias!r} is no store of LEVADA['REPLICATE']. "
            f"{_meant(alias, aliases)}The stores are: {', '.join(aliases) or 'none yet'}.",
            status,
        )
    return alias


def known_labels(alias: str, labels: Iterable[str] | None, *, status: int = 1) -> list[str] | None:
    """Return `labels` as Django writes them, None for all. Raises Failure for an unknown one."""
    if not labels:
        return None
    known = {label.lower(): label for label in conf.replicated_in(alias)}
    for label in labels:
        if label.lower() not in known:
            raise Failure(
                f"{label!r} does not go to {alias!r}. "
                f"{_meant(label, known.values())}Its tables are: {', '.join(known.values())}.",
                status,
            )
    return [known[label.lower()] for label in labels]


def _meant(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, list(names), n=1)
    return f"Did you mean {close[0]!r}? " if close else ""
