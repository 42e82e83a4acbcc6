"""
Log lines for two readers: a person at a terminal, and the machine that collects stderr.

    17:03:08 apply:analytics  running
    {"at": "2026-11-21T17:03:08.113+00:00", "level": "info", "part": "apply:analytics", …}
"""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import IO, Any

FORMATS = ("auto", "text", "json")
THREAD_PREFIX = "levada "
"""Threads of the keeper are called this plus the name of their part."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "part"}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}


def part_of(record: logging.LogRecord) -> str:
    """Name the part a line is about: the one it says, that of its thread, or its module."""
    said = getattr(record, "part", None)
    if said:
        return str(said)
    thread = record.threadName or ""
    if thread.startswith(THREAD_PREFIX):
        return thread.removeprefix(THREAD_PREFIX)
    return record.name.rpartition(".")[2]


class TextFormatter(logging.Formatter):
    """Time, part and message in columns; trouble in colour where the terminal has it."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self.colour = colour

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {part_of(record):<18} {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        paint = _COLOURS.get(record.levelname, "") if self.colour else ""
        return f"{paint}{line}\x1b[0m" if paint else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, part, message, then whatever the event carries."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "part": part_of(record),
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(log_format: str = "auto", stream: IO[str] | None = None) -> logging.Handler:
    """
    Send the logger `levada` to `stream` (stderr) in one of FORMATS; return the handler added.

    auto: text on a terminal, JSON lines elsewhere. A project that configured
    the logger itself keeps its handlers: ours only joins where there is none.
    """
    stream = stream or sys.stderr
    tty = bool(getattr(stream, "isatty", lambda: False)())
    as_text = log_format == "text" or (log_format == "auto" and tty)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter(colour=tty) if as_text else JsonFormatter())
    root = logging.getLogger("levada")
    if root.handlers:
        return handler
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False
    return handler
