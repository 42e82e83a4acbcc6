"""
The Prometheus text exposition format, version 0.0.4, from plain values.

https://prometheus.io/docs/instrumenting/exposition_formats/: one HELP and one
TYPE line per family, its samples together, label values with backslash,
newline and quote escaped, a newline at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, `gauge` or `counter`, help, and a value per set of labels."""

    name: str
    type: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def render(families: Iterable[Family]) -> str:
    """Write `families`; one without samples is left out."""
    return "".join(line + "\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    if not family.samples:
        return
    yield f"# HELP {family.name} {_escape(family.help)}"
    yield f"# TYPE {family.name} {family.type}"
    for labels, value in family.samples:
        pairs = ",".join(f'{name}="{_escape_label(text)}"' for name, text in labels.items())
        yield (
            f"{family.name}{{{pairs}}} {_number(value)}"
            if pairs
            else (f"{family.name} {_number(value)}")
        )


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    return _escape(text).replace('"', '\\"')


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(int(value)) if float(value).is_integer() else repr(float(value))
