"""Fault points: armed by one environment variable, free without it."""

import signal

import pytest

from levada import faults


@pytest.fixture
def killed(monkeypatch):
    """What would have been sent to this process."""
    sent = []
    monkeypatch.setattr("levada.faults.os.kill", lambda pid, number: sent.append(number))
    return sent


def arm(monkeypatch, text):
    monkeypatch.setattr(faults, "_armed", faults.Fault(text))


def test_an_unarmed_point_does_nothing(killed):
    faults.point("relay.before_append")
    assert killed == []


def test_an_armed_point_kills(monkeypatch, killed):
    arm(monkeypatch, "relay.before_append")
    faults.point("relay.after_append")
    assert killed == []
    faults.point("relay.before_append")
    assert killed == [signal.SIGKILL]


def test_only_the_chosen_passing_counts(monkeypatch, killed):
    arm(monkeypatch, "relay.before_append:3:STOP")
    for expected in ([], [], [signal.SIGSTOP], [signal.SIGSTOP]):
        faults.point("relay.before_append")
        assert killed == expected


def test_an_unknown_point_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"relay\.after_prune"):
        faults.Fault("relay.nowhere")
