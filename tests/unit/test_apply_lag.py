"""The lag is asked every few seconds: it must cost the same behind a transaction of any size."""

from datetime import UTC, datetime

from levada.apply.lag import Lag, lag
from levada.changes import CHANGES, OutboxRow
from levada.log.memory import MemoryLog

NOW = datetime(2026, 11, 21, 12, 0, 10, tzinfo=UTC)


class CountingLog(MemoryLog):
    def __init__(self):
        super().__init__()
        self.read_rows = 0

    def read(self, *args, **options):
        batch = super().read(*args, **options)
        self.read_rows += len(batch)
        return batch


def test_the_lag_reads_one_record_of_a_large_transaction():
    log = CountingLog()
    rows = [
        OutboxRow(
            CHANGES, "shop.Order", "c", f"[{n}]", None, "{}", "f", 7, n, "2026-11-21T12:00:00", None
        )
        for n in range(1, 501)
    ]
    log.append(rows, source="default", expected=None, cursor="500")
    assert lag(log.beginning(CHANGES), log, now=NOW) == Lag(500, 10.0)
    assert log.read_rows == 1
