"""`python -m levada` runs the demo and says what else there is."""

import os
import subprocess
import sys

from levada import __main__


def test_demo_hands_its_words_to_the_demo(monkeypatch):
    import levada.demo

    seen = []
    monkeypatch.setattr(levada.demo, "main", lambda argv: seen.append(argv) or 7, raising=False)
    assert __main__.main(["demo", "--rows", "10", "--check"]) == 7
    assert seen == [["--rows", "10", "--check"]]


def test_a_word_of_manage_py_is_pointed_there(capsys):
    assert __main__.main(["status", "analytics"]) == 2
    said = capsys.readouterr()
    assert "Run: python manage.py levada status analytics" in said.out + said.err


def test_help_is_no_error(capsys):
    assert __main__.main(["--help"]) == 0
    assert "python -m levada demo" in capsys.readouterr().out


def test_the_module_can_be_run_without_a_project():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    env.pop("DJANGO_SETTINGS_MODULE", None)
    ran = subprocess.run(
        [sys.executable, "-m", "levada", "--version"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.startswith("levada ")
