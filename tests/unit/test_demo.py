"""The parts of the demo that need no project."""

import io
import re
import socket
import subprocess
import sys

import pytest

from levada.demo import folder, main, options, serving
from levada.demo.bar import Bar
from levada.demo.table import table


def test_the_options_have_the_defaults_that_the_help_tells():
    chosen = options.parse([])
    assert (chosen.rows, chosen.port, chosen.no_browser, chosen.check) == (
        1_000_000,
        None,
        False,
        False,
    )
    assert str(chosen.data) == ".levada-demo"


@pytest.mark.parametrize("text", ["20000", "20,000", "20_000"])
def test_rows_may_have_their_thousands_set_off(text):
    assert options.parse(["--rows", text]).rows == 20_000


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--rows", "many"], "'many' is not a number of rows"),
        (["--rows", "2000001"], "is not between 0 and 2,000,000"),
        (["--rows", "-1"], "is not between 0 and 2,000,000"),
        (["--port", "65536"], "is not between 0 and 65535"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_words(words, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words])
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_taken_port_that_was_asked_for_is_refused_with_what_to_type():
    with serving.bind(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(serving.PortTaken, match=rf"Port {port} .*--port"):
            serving.bind(port)


def test_without_a_wish_the_next_free_port_is_taken(monkeypatch):
    with serving.bind(0) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(serving, "DEFAULT_PORT", port)
        with serving.bind(None) as next_one:
            assert port < next_one.getsockname()[1] < port + serving.TRIED_PORTS


def test_when_every_port_is_taken_the_message_names_them(monkeypatch):
    with serving.bind(0) as taken:
        monkeypatch.setattr(serving, "DEFAULT_PORT", taken.getsockname()[1])
        monkeypatch.setattr(serving, "TRIED_PORTS", 1)
        with pytest.raises(serving.PortTaken, match="all taken"):
            serving.bind(None)


def test_the_demo_listens_on_this_machine_alone():
    with serving.bind(0) as listener:
        assert listener.family == socket.AF_INET
        assert listener.getsockname()[0] == "127.0.0.1"


def test_no_browser_is_opened_where_there_is_no_screen(monkeypatch):
    monkeypatch.setattr(serving.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not serving.has_browser()


def test_two_demos_do_not_work_in_one_folder(tmp_path):
    with (
        folder.own(tmp_path / "demo"),
        pytest.raises(folder.FolderTaken, match="--data"),
        folder.own(tmp_path / "demo"),
    ):
        pass
    with folder.own(tmp_path / "demo"):
        pass


def test_a_folder_that_cannot_be_made_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(folder.FolderTaken, match="--data"), folder.own(tmp_path / "file"):
        pass


def test_the_table_sets_numbers_to_the_right():
    shown = table(
        [
            ("default", "SQLite", "1,007,022", "233 MB", "", ""),
            ("analytics", "DuckDB", "7", "18.1 MB", "0 changes", "verified ✓"),
        ]
    )
    assert shown.splitlines() == [
        "  store       engine        rows      size         lag   proof",
        "  default     SQLite   1,007,022    233 MB",
        "  analytics   DuckDB           7   18.1 MB   0 changes   verified ✓",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_tells_a_file_one_line_when_it_is_done():
    out = io.StringIO()
    with Bar("Loading", 100, out) as bar:
        bar.to(50)
        bar.note = "100 rows"
    assert re.fullmatch(r"  Loading +\d+\.\d s  100 rows\n", out.getvalue())


def test_a_bar_moves_on_a_terminal_and_leaves_one_line(monkeypatch):
    monkeypatch.setattr("levada.demo.bar.REDRAW_S", 0.0)
    out = Terminal()
    with Bar("Loading", 100, out) as bar:
        bar.to(50)
    assert "━" * 14 + "─" * 14 + " 50 of 100" in out.getvalue()
    assert out.getvalue().count("\n") == 1


def test_a_step_that_fails_does_not_say_it_is_done():
    out = io.StringIO()
    with pytest.raises(RuntimeError), Bar("Loading", 1, out):
        raise RuntimeError
    assert out.getvalue() == ""


def test_without_its_extra_the_demo_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main([]) == 1
    assert "pip install 'levada[demo]'" in capsys.readouterr().err


def test_the_help_of_the_demo_needs_no_engine():
    """A machine without the extra can still ask what the demo would do."""
    code = (
        "import sys; sys.modules.update(duckdb=None, pyarrow=None, uvicorn=None, django=None);"
        "from levada.__main__ import main; main(['demo', '--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        check=False,
    )
    assert "--rows" in done.stdout, done.stderr
