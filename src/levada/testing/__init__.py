"""
What a project needs to test its own use of Levada.

    from levada.testing import assert_replicated, drain

    def test_the_dashboard_counts_orders(levada_drain):
        Order.objects.create(...)
        levada_drain()
        assert levada.replica(Order).count() == 1

`drain()` carries everything that was written to the stores and handlers, in
this thread, and returns when they are done. It works inside the transaction
of a TestCase, and on committed data in a TransactionTestCase. The pytest
plugin and `LevadaTestMixin` keep one test's records from the next and let
`levada.wait_for()` drain by itself, so no keeper is needed.
"""

from .draining import Drained, assert_replicated, begin, drain, end
from .mixin import LevadaTestMixin

__all__ = ["Drained", "LevadaTestMixin", "assert_replicated", "begin", "drain", "end"]
