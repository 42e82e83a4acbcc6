"""The reference project under uvicorn, as a project runs it: with its keeper, not as a demo."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

import pytest

from tests.demo import environment


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Migrate, then serve on a free port; yields the process and its address."""
    kept = environment(
        ALMANAC_DATA=str(tmp_path_factory.mktemp("almanac") / "data"),
        ALMANAC_KEEPER="1",
        DJANGO_SETTINGS_MODULE="almanac.config.settings",
    )
    subprocess.run(
        [sys.executable, "-m", "almanac", "migrate", "--verbosity", "0"], env=kept, check=True
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        number = str(listener.fileno())
        command = [sys.executable, "-m", "uvicorn", "almanac.config.asgi:application"]
        process = subprocess.Popen(
            [*command, "--fd", number, "--timeout-graceful-shutdown", "1"],
            env=kept,
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        yield process, f"http://127.0.0.1:{port}/"
    process.kill()
    process.communicate()


@pytest.fixture
def visit(server):
    """Ask for a page with cookies kept; the listening socket makes early callers wait."""
    _, url = server
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def visit(path="", data=None, **headers):
        encoded = urllib.parse.urlencode(data).encode() if data is not None else None
        asked = urllib.request.Request(url + path, encoded, headers)
        try:
            answer = opener.open(asked, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.headers, answer.read().decode()

    return visit


def token(page):
    return re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[1]


def test_outside_the_demo_there_is_nothing_to_delete(visit):
    status, _, page = visit()
    assert status == 200
    assert "Write an event" in page
    assert "Delete the replica" not in page
    for work in ("delete", "rebuild", "verify"):
        assert visit(f"replica/{work}/", {"csrfmiddlewaretoken": token(page)})[0] == 404


@pytest.mark.parametrize("path", ["events/", "race/key/", "replica/delete/"])
def test_a_form_of_another_site_is_refused(visit, path):
    assert visit(path, {})[0] == 403
    assert visit(path)[0] == 405


def test_an_event_that_is_posted_reaches_the_replica(visit):
    """The keeper runs in this very process, and fills a replica nobody has built yet."""
    _, _, page = visit()
    fields = {
        "csrfmiddlewaretoken": token(page),
        "event_name": "Posted",
        "country": "PT",
        "date": "2026-11-21",
        "time": "",
        "importance": "3",
        "actual": "4.8200",
        "forecast": "",
    }
    status, _, answer = visit("events/", fields, Accept="application/json")
    assert (status, "✓" in answer or "\\u2713" in answer) == (201, True)
    status, _, answer = visit("events/", fields, Accept="application/json")
    assert (status, "already exists" in answer) == (422, True)


def test_every_answer_forbids_scripts_of_anywhere_else(visit):
    for path in ("", "admin/login/", "events/", "nowhere/"):
        policy = visit(path)[1]["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy


def test_the_page_has_no_script_or_style_of_its_own_inside(visit):
    _, _, page = visit()
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert "<style" not in page
    assert re.findall(r"\s(?:style|on\w+)=", page) == []


@pytest.mark.parametrize("name", ["channel.css", "channel.js", "icon.svg"])
def test_the_server_hands_out_the_page_s_files(visit, name):
    status, _, text = visit(f"static/channel/{name}")
    assert status == 200
    assert text


def test_a_host_name_that_is_not_ours_gets_no_page(visit):
    assert visit(Host="evil.example")[0] == 400


def test_a_contest_that_does_not_exist_is_not_found(visit):
    _, _, page = visit()
    assert visit("race/marathon/", {"csrfmiddlewaretoken": token(page)})[0] == 404


def test_sigterm_stops_server_and_keeper(server):
    """Runs last: the tests of this module share the server."""
    process, _ = server
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert "Finished server process" in said
