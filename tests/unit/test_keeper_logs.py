"""A person reads columns, a machine reads JSON, and neither misses what happened."""

import io
import json
import logging
import sys

import pytest

from levada.keeper.logs import JsonFormatter, TextFormatter, configure


def record(message="3 records of %s", *args, level=logging.INFO, name="levada.keeper", **extra):
    made = logging.getLogger(name).makeRecord(name, level, "f", 1, message, args, None, extra=extra)
    made.created = 1_795_273_388.25
    return made


@pytest.fixture
def own_logger(monkeypatch):
    logger = logging.getLogger("levada")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    logging.getLogger("levada.keeper").manager._clear_cache()
    yield logger
    logging.getLogger("levada.keeper").manager._clear_cache()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_json_lines_carry_time_level_part_message_and_the_rest():
    line = json.loads(
        JsonFormatter().format(record("3 records of %s", "shop", part="relay", lag_s=0.5))
    )
    assert line == {
        "at": "2026-11-21T15:03:08.250+00:00",
        "level": "info",
        "part": "relay",
        "message": "3 records of shop",
        "lag_s": 0.5,
    }


def test_a_json_line_is_one_line_whatever_the_message():
    assert "\n" not in JsonFormatter().format(record("two\nlines of žluťoučký 🐎"))


def test_text_has_time_part_and_message():
    line = TextFormatter().format(record("running", part="apply:analytics"))
    assert line.split(maxsplit=2)[1:] == ["apply:analytics", "running"]


def test_a_module_without_a_part_is_named_by_its_logger():
    assert " retention " in TextFormatter().format(record("x", name="levada.retention"))


def test_what_a_part_logs_without_saying_so_is_named_by_its_thread():
    line = record("rebuilding", name="levada.apply")
    line.threadName = "levada apply:analytics"
    assert " apply:analytics " in TextFormatter().format(line)
    assert json.loads(JsonFormatter().format(line))["part"] == "apply:analytics"


def test_trouble_is_coloured_on_a_terminal_only():
    trouble = record("gone", level=logging.ERROR)
    assert "\x1b[31m" in TextFormatter(colour=True).format(trouble)
    assert "\x1b" not in TextFormatter().format(trouble)


@pytest.mark.parametrize(
    ("log_format", "stream", "is_json"),
    [
        ("auto", Terminal, False),
        ("auto", io.StringIO, True),
        ("json", Terminal, True),
        ("text", io.StringIO, False),
    ],
)
def test_the_format_follows_the_reader_unless_it_is_said(own_logger, log_format, stream, is_json):
    out = stream()
    configure(log_format, out)
    logging.getLogger("levada.keeper").info("running")
    assert out.getvalue().startswith("{") is is_json


def test_both_formats_carry_the_traceback_of_a_bug():
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        bug = record("bug")
        bug.exc_info = sys.exc_info()
    assert "ZeroDivisionError" in json.loads(JsonFormatter().format(bug))["traceback"]
    assert "ZeroDivisionError" in TextFormatter().format(bug)


def test_a_project_that_configured_the_logger_keeps_its_handlers(own_logger):
    mine = logging.NullHandler()
    own_logger.addHandler(mine)
    configure("json", io.StringIO())
    assert own_logger.handlers == [mine]
