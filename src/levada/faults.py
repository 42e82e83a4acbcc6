"""
Named points at which tests kill or freeze the process, to prove that nothing is lost there.

    LEVADA_FAULT=relay.after_append        SIGKILL when this point is reached first
    LEVADA_FAULT=relay.after_append:3      … the third time
    LEVADA_FAULT=relay.after_append:1:STOP freeze (SIGSTOP) instead, until SIGCONT

Without the variable a point costs one comparison. It is read once, when this
module is imported.
"""

from __future__ import annotations

import os
import signal

POINTS: dict[str, str] = {
    "relay.before_append": "rows were fetched, the log does not hold them",
    "relay.in_append": "the log's transaction holds the rows and is not committed",
    "relay.after_append": "the log holds the rows, the outbox still holds them too",
    "relay.in_prune": "some of the relayed rows have left the outbox",
    "relay.after_prune": "the relayed rows have left the outbox",
    "apply.before_transaction": "the batch is read and checked, the store's transaction not begun",
    "apply.between_parts": "some parts of a large transaction are written, nothing is committed",
    "apply.before_commit": "the store's transaction holds the batch and is not committed",
    "apply.after_commit": "the store holds the batch, the log does not know yet",
    "apply.before_letter": "a record was found to be poison, its dead letter is not written",
    "apply.after_letter": "the dead letter is written, the store has not passed the record",
    "handlers.before_move": "records were read, their handler is not called",
    "handlers.before_commit": "the handler has written, its transaction is not committed",
    "handlers.after_commit": "handler and position are committed, the log does not know yet",
    "rebuild.before_snapshot": "the log's end was noted, the source not yet read",
    "rebuild.in_load": "some of a table's rows are in its shadow",
    "rebuild.after_load": "all rows are in the shadows, the log is not replayed",
    "rebuild.in_replay": "a part of the log is replayed into the shadows",
    "rebuild.before_swap": "the shadows have the tables' names in an uncommitted transaction",
    "rebuild.after_swap": "the shadows have the tables' names",
}
"""Every point by name, with the state of the world when it is reached."""


class Fault:
    """One armed point: which, at which passing, and the signal sent there."""

    def __init__(self, text: str) -> None:
        name, _, rest = text.partition(":")
        passing, _, signal_name = rest.partition(":")
        if name not in POINTS:
            raise ValueError(
                f"LEVADA_FAULT={text!r} names no fault point. Known: {', '.join(POINTS)}"
            )
        self.name = name
        self.passings_left = int(passing or 1)
        self.signal = signal.Signals[f"SIG{signal_name or 'KILL'}"]

    def reach(self, name: str) -> None:
        """Send the signal to this process if `name` is the armed point and its passing has come."""
        if name != self.name:
            return
        self.passings_left -= 1
        if self.passings_left == 0:
            os.kill(os.getpid(), self.signal)


_armed = Fault(os.environ["LEVADA_FAULT"]) if os.environ.get("LEVADA_FAULT") else None


def point(name: str) -> None:
    """Mark the point `name` of `POINTS`; does nothing unless LEVADA_FAULT arms it."""
    if _armed is not None:
        _armed.reach(name)
