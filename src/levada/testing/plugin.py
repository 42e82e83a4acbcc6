"""
The pytest plugin: the fixtures `levada_drain` and `levada_assert_replicated`.

pytest finds it by itself, through the entry point `pytest11`. Both fixtures
need a database: mark the test `django_db`, with `databases=["default",
"analytics"]` where it reads a store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def levada_drain(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """
    `levada.testing.drain`, for a test whose channel starts empty.

    While it is in use, `levada.wait_for()` drains instead of waiting for a keeper.
    """
    _need_database(request)
    from levada.testing import begin, drain, end

    begin()
    try:
        yield drain
    finally:
        end()


@pytest.fixture
def levada_assert_replicated(levada_drain: Callable[..., Any]) -> Callable[..., None]:
    """`levada.testing.assert_replicated`, for a test whose channel starts empty."""
    from levada.testing import assert_replicated

    return assert_replicated


DATABASE_FIXTURES = ("transactional_db", "django_db_reset_sequences", "db")


def _need_database(request: pytest.FixtureRequest) -> None:
    """Have the test's database set up before our own setup touches it."""
    named = [name for name in DATABASE_FIXTURES if name in request.fixturenames]
    if named:
        request.getfixturevalue(named[0])
    elif not request.node.get_closest_marker("django_db"):
        pytest.fail(
            "levada_drain needs a database. Mark the test: @pytest.mark.django_db, and with "
            "transaction=True if other threads or processes take part in it.",
            pytrace=False,
        )
