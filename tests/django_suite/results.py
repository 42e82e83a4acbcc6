"""What became of each test of an app, from the record its process left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_ORDER = ("skipped", "passed", "expected", "failed")
"""Of several outcomes of one test (its subtests, its tearDown) the last in this order counts."""


@dataclass
class AppResult:
    """The outcomes of one app's tests. `outcomes` and `reasons` go by a test's dotted name."""

    app: str
    seconds: float = 0.0
    outcomes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, test: str, outcome: str, reason: str = "") -> None:
        """Note an outcome: passed, failed, expected or skipped."""
        before = self.outcomes.get(test)
        if before is not None and _ORDER.index(before) >= _ORDER.index(outcome):
            return
        self.outcomes[test] = outcome
        if reason:
            self.reasons[test] = reason

    def count(self, outcome: str) -> int:
        """Return how many tests ended so."""
        return Counter(self.outcomes.values())[outcome]

    @property
    def run(self) -> int:
        """How many tests ran: all but the skipped ones."""
        return len(self.outcomes) - self.count("skipped")

    def of(self, outcome: str) -> dict[str, str]:
        """Return the tests that ended so, each with its reason."""
        return {
            test: self.reasons.get(test, "")
            for test, each in self.outcomes.items()
            if each == outcome
        }


def read_record(app: str, lines: Iterable[str], ended: str | None) -> AppResult:
    """
    Return the result of `app` from its process's record.

    ended: how a process ended that did not come to its end ("ran out of its
    300 s"), None for one that did or claims it. The test that was under way
    then counts as failed, and without one the app itself.
    """
    result = AppResult(app)
    under_way, done = None, False
    for line in lines:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "done":
            done = True
        elif event["event"] == "start":
            under_way = event["test"]
        else:
            result.add(event["test"], event["outcome"], event.get("reason", ""))
    if ended is None and done:
        return result
    if done and result.count("failed"):  # the status tells no more than the record
        return result
    culprit = under_way if under_way and not done else app
    result.add(culprit, "failed", f"The process {ended or 'left no complete record'}.")
    return result
