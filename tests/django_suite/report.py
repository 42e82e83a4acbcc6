"""The results as lines for a terminal, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .results import AppResult

OUTCOMES = ("passed", "failed", "expected", "skipped")
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
    """Return the table for docs/conformance.md, then the skips by their reason."""
    what = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [f"## {what}", "", f"| app | {' | '.join(HEADINGS)} |", "|---" + "|---:" * 5 + "|"]
    lines += [_row(each.app, numbers(each)) for each in results]
    lines.append(_row("**all**", total(results)))
    lines += [f"| {app} | left out: {reason} | | | | |" for app, reason in out.items()]
    lines += ["", "| skipped because | tests |", "|---|---:|"]
    lines += [f"| {reason} | {count} |" for reason, count in skip_reasons(results)]
    return "\n".join(lines) + "\n"


def skip_reasons(results: Sequence[AppResult]) -> list[tuple[str, int]]:
    """Return each reason for a skip and how many tests it took, the most first."""
    counts: dict[str, int] = {}
    for each in results:
        for reason in each.of("skipped").values():
            words = " ".join(reason.split()).replace("|", "\\|") or "no reason given"
            counts[words] = counts.get(words, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _row(name: str, figures: Sequence[int]) -> str:
    return f"| {name} | {' | '.join(map(str, figures))} |"
