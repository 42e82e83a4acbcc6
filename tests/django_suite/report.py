"""The results as lines for a terminal, as JSON and as Markdown."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from . import causes
from .results import AppResult

OUTCOMES = ("passed", "failed", "expected", "skipped")
UNEXPLAINED = "Unexplained"
DJANGOS_OWN = "Django's own source says so, for every database."
HEADINGS = ("run", "passed", "failed", "expected failures", "skipped")


def numbers(result: AppResult) -> tuple[int, ...]:
    """Return an app's figures in the order of HEADINGS."""
    return (result.run, *(result.count(outcome) for outcome in OUTCOMES))


def line(result: AppResult) -> str:
    """Return one app's figures as a line."""
    figures = ", ".join(f"{n} {h}" for n, h in zip(numbers(result), HEADINGS, strict=True))
    mark = "FAILED" if result.count("failed") else "ok"
    return f"{result.app:<34} {mark:<6} {figures}  ({result.seconds:.0f} s)"


def total(results: Sequence[AppResult]) -> tuple[int, ...]:
    """Return the figures of all apps together."""
    columns = zip(*(numbers(each) for each in results), strict=True)
    return tuple(sum(column) for column in columns) or (0,) * len(HEADINGS)


def summary(results: Sequence[AppResult], versions: dict[str, str]) -> str:
    """Return the failures, then the figures of all apps."""
    lines = []
    for result in results:
        for test, reason in result.of("failed").items():
            last = reason.strip().splitlines()[-1] if reason.strip() else ""
            lines.append(f"FAILED {test}: {last}")
    for test, reason in unexplained(results).items():
        lines.append(f"UNEXPLAINED SKIP {test}: {reason}")
    figures = ", ".join(f"{n} {h}" for n, h in zip(total(results), HEADINGS, strict=True))
    what = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join([*lines, f"{len(results)} apps: {figures} ({what})"])


def as_json(results: Sequence[AppResult], versions: dict[str, str], out: dict[str, str]) -> str:
    """Return everything that is known as JSON."""
    apps: dict[str, Any] = {}
    for each in results:
        apps[each.app] = {
            **dict(zip(HEADINGS, numbers(each), strict=True)),
            "seconds": round(each.seconds, 1),
            "failures": each.of("failed"),
            "expected": sorted(each.of("expected")),
            "skips": each.of("skipped"),
        }
    return json.dumps({"versions": versions, "left out": out, "apps": apps}, indent=1) + "\n"


def as_markdown(results: Sequence[AppResult], versions: dict[str, str], out: dict[str, str]) -> str:
    """Return a section for docs/conformance.md: the causes, then the table of the apps."""
    what = ", ".join(f"{name} {version}" for name, version in versions.items())
    run, passed, failed, expected, skipped = total(results)
    lines = [
        f"## {what}",
        "",
        f"{run:,} tests ran in {len(results)} apps: {passed:,} passed, {failed:,} failed, "
        f"{expected} failed as expected. {skipped:,} were skipped.",
        *(f"`{app}` is left out: it {reason}." for app, reason in out.items()),
        *_causes("Skipped because", skips_by_cause(results)),
        *_causes("Expected to fail because", expected_by_cause(results)),
        "",
        f"| app | {' | '.join(HEADINGS)} |",
        "|---" + "|---:" * len(HEADINGS) + "|",
        *(_row(each.app, numbers(each)) for each in results),
    ]
    return "\n".join(lines) + "\n"


def put_into(page: str, section: str) -> str:
    """Return `page` with `section` in place of the one on the same series of Django, or added."""
    found = re.match(r"## Django (\d+\.\d+)", section)
    assert found is not None
    old = re.compile(rf"^## Django {re.escape(found[1])}\..*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if not old.search(page):
        return f"{page.rstrip()}\n\n{section}"
    return old.sub(lambda _: f"{section}\n", page).rstrip() + "\n"


def skips_by_cause(results: Sequence[AppResult]) -> Counter[str]:
    """Return how many tests each cause skipped."""
    reasons = (reason for each in results for reason in each.of("skipped").values())
    return Counter(causes.cause_of(reason) or UNEXPLAINED for reason in reasons)


def expected_by_cause(results: Sequence[AppResult]) -> Counter[str]:
    """Return how many tests failed as expected for each cause."""
    tests = (test for each in results for test in each.of("expected"))
    return Counter(causes.cause_of_expected(test) or DJANGOS_OWN for test in tests)


def unexplained(results: Sequence[AppResult]) -> dict[str, str]:
    """Return the skipped tests without a known cause, each with its reason."""
    return {
        test: reason
        for each in results
        for test, reason in each.of("skipped").items()
        if causes.cause_of(reason) is None
    }


def _causes(heading: str, counts: Counter[str]) -> list[str]:
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    table = [f"| {cause} | {count} |" for cause, count in rows]
    return ["", f"| {heading} | tests |", "|---|---:|", *table] if rows else []


def _row(name: str, figures: Sequence[int]) -> str:
    return f"| {name} | {' | '.join(map(str, figures))} |"
