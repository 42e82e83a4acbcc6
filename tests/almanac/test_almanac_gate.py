"""The gate before the replica: nobody is inside while the file goes."""

import threading

import pytest

from almanac.channel import places
from almanac.channel.places import Gate, NoReplica


@pytest.fixture
def replica(tmp_path, monkeypatch):
    path = tmp_path / "replica.duckdb"
    path.touch()
    monkeypatch.setattr(places, "replica_path", lambda: path)
    return path


def test_a_replica_that_is_not_there_turns_readers_away(replica):
    replica.unlink()
    with pytest.raises(NoReplica, match="Press Rebuild"), Gate().reading():
        pass


def test_closing_waits_for_the_readers_inside_and_turns_away_later_ones(replica):
    gate, closed = Gate(), threading.Event()
    closing = threading.Thread(target=lambda: (gate.close(), closed.set()))
    with gate.reading():
        closing.start()
        while not gate._closed:
            pass
        with pytest.raises(NoReplica), gate.reading():
            pass
        assert not closed.is_set()
    closing.join(30)
    assert closed.is_set()


def test_an_opened_gate_lets_readers_in_again_even_after_one_failed(replica):
    gate = Gate()
    with pytest.raises(RuntimeError), gate.reading():
        raise RuntimeError
    gate.close()
    gate.open()
    with gate.reading():
        pass
