"""For unittest-style tests: what the pytest fixture `levada_drain` does, as a mixin."""

from __future__ import annotations

from typing import Any

from .draining import Drained, assert_replicated, begin, drain, end


class LevadaTestMixin:
    """
    Mix into a TestCase or TransactionTestCase: `self.drain()`, `self.assert_replicated()`.

    Put it first: `class OrderTests(LevadaTestMixin, TestCase)`. A TestCase
    that reads a store lists it: `databases = {"default", "analytics"}`.
    """

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        begin()
        self.addCleanup(end)  # type: ignore[attr-defined]

    def drain(self, **options: Any) -> Drained:
        """Like `levada.testing.drain()`."""
        return drain(**options)

    def assert_replicated(self, *wanted: Any, **options: Any) -> None:
        """Like `levada.testing.assert_replicated()`."""
        assert_replicated(*wanted, **options)
