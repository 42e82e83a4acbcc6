"""Every page of the documentation does what it shows, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .blocks import blocks, commands, run_page, shown

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
RUNNABLE = [page for page in PAGES if any(block.marks for block in blocks(page.read_text()))]
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)

a_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.mark.sqlite
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_a_page_does_what_it_shows(page, tmp_path):
    assert run_page(page.read_text(encoding="utf-8"), tmp_path) > 0


def anchor(heading: str) -> str:
    """Return a heading's anchor as GitHub makes it."""
    words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return words.replace(" ", "-")


def broken_links(page: Path) -> list[str]:
    """Return the page's links to a file, heading or test that is not there."""
    broken = []
    for path, fragment in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            broken.append(path)
        elif fragment and target.suffix == ".md":
            headings = HEADING.findall(target.read_text(encoding="utf-8"))
            if fragment not in map(anchor, headings):
                broken.append(f"{path}#{fragment}")
        elif fragment and f"def {fragment}(" not in target.read_text(encoding="utf-8"):
            broken.append(f"{path}#{fragment}")
    return broken


@a_page
def test_the_links_of_a_page_lead_somewhere(page):
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading\n[a](page.md#one-heading) [b](#one-heading) [c](other.md) "
        "[d](page.md#no-heading) [e](https://example.com/x)\n"
    )
    assert broken_links(page) == ["other.md", "page.md#no-heading"]


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {path for path, _ in LINK.findall(index)}
    written = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert written - linked == {"index.md"}


def test_blocks_know_their_marks_and_their_lines():
    page = "Text\n\n```python file=shop/models.py\na = 1\n```\n\n```console run\n$ ls\n```\n"
    first, second = blocks(page)
    assert (first.language, first.file, first.text, first.line) == (
        "python",
        "shop/models.py",
        "a = 1\n",
        3,
    )
    assert (second.language, second.marks, second.file) == ("console", ("run",), None)


def test_a_console_block_is_commands_with_their_output():
    (first, second) = commands("$ ls\na\nb\n\n$ pwd\n")
    assert (first.line, first.output) == ("ls", ("a", "b"))
    assert (second.line, second.output) == ("pwd", ())


@pytest.mark.parametrize(
    ("expected", "output", "as_shown"),
    [
        ("3 rows", "one\n3 rows\n", True),
        ("3 rows", "13 rows\n", False),
        ("… rows", "13 rows\n", True),
        ("took … s, fine", "took 0.2 s, fine", True),
        ("a b", "a      b", True),
    ],
)
def test_expected_output_has_gaps(expected, output, as_shown):
    assert shown(expected, output) is as_shown


PAGE = """
```console run
$ django-admin startproject mysite .
$ python manage.py check
System check identified no issues (… silenced).
```

```python file=mysite/settings.py
GREETING = "hello"
```

```python run
from django.conf import settings
assert settings.GREETING == "hello", settings.GREETING
```
"""


def test_a_page_is_run_in_a_project_of_its_own(tmp_path):
    assert run_page(PAGE, tmp_path) == 3


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("no issues", "no worries", "did not print"),
        ("manage.py check", "manage.py chekc", "failed"),
        ('== "hello"', '== "bye"', "AssertionError: hello"),
    ],
)
def test_a_page_that_does_something_else_fails(tmp_path, right, wrong, message):
    with pytest.raises(AssertionError, match=message):
        run_page(PAGE.replace(right, wrong), tmp_path)


def test_a_background_command_runs_until_the_page_ends(tmp_path):
    assert run_page("```console background\n$ sleep 60\n```\n", tmp_path) == 1


DYING = """
```console background
$ bash -c "trap '' TERM; touch ready; exit 3"
```

```console run
$ until [ -e ready ]; do sleep 0.01; done
```
"""


def test_a_background_command_that_fails_fails_its_page(tmp_path):
    with pytest.raises(AssertionError, match="status 3"):
        run_page(DYING, tmp_path)
