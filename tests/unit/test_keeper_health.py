"""/healthz says at a glance whether every part is up; /metrics and /healthz answer on 127.0.0.1."""

import json
import urllib.error
import urllib.request

import pytest

from levada.keeper.health import HealthServer, health
from levada.keeper.supervisor import PartStatus


def part(state, name="relay", **more):
    return PartStatus(name, state, 1.23456, **more)


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["running"], 200),
        (["running", "starting"], 200),
        (["running", "waiting"], 503),
        (["running", "halted"], 503),
        (["running", "stopped"], 503),
        ([], 503),
    ],
)
def test_one_part_that_is_down_makes_the_keeper_unhealthy(states, status):
    assert health([part(state, str(n)) for n, state in enumerate(states)])[0] == status


def test_the_body_says_what_each_part_does():
    body = health([part("waiting", restarts=2, error="no database")])[1]
    assert body == {
        "status": "failing",
        "parts": {
            "relay": {"state": "waiting", "for_s": 1.235, "restarts": 2, "error": "no database"}
        },
    }


@pytest.fixture
def server():
    state = {"parts": [part("running")], "text": "levada_x 1\n"}

    def exposition():
        if isinstance(state["text"], Exception):
            raise state["text"]
        return state["text"]

    served = HealthServer(0, parts=lambda: state["parts"], exposition=exposition)
    served.start()
    served.state = state
    yield served
    served.stop()


def get(server, path, method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_healthz_answers_200_and_then_503(server):
    status, kind, body = get(server, "/healthz")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body)["status"] == "ok"
    server.state["parts"] = [part("halted")]
    assert get(server, "/healthz")[0] == 503


def test_metrics_have_the_content_type_prometheus_asks_for(server):
    status, kind, body = get(server, "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert body == "levada_x 1\n"


def test_metrics_that_cannot_be_read_answer_500_and_the_server_lives_on(server):
    server.state["text"] = OSError("the log is gone")
    status, _, body = get(server, "/metrics")
    assert (status, body) == (500, "the log is gone\n")
    assert get(server, "/healthz")[0] == 200


def test_head_and_query_are_understood_and_other_paths_are_404(server):
    assert get(server, "/healthz?verbose=1", "HEAD") == (200, "application/json", "")
    assert get(server, "/admin")[0] == 404


def test_a_taken_port_is_an_error_at_once(server):
    with pytest.raises(OSError, match="in use"):
        HealthServer(server.port, parts=list, exposition=str)


def test_a_stopped_server_gives_its_port_back():
    first = HealthServer(0, parts=list, exposition=str)
    first.start()
    first.stop()
    second = HealthServer(first.port, parts=list, exposition=str)
    second.stop()


def test_only_this_machine_can_ask(server):
    assert server._server.server_address[0] == "127.0.0.1"
