"""Where a replay may begin, and what it does to a store and to a group."""

import pytest

from levada.changes import CHANGES, OutboxRow, Position
from levada.errors import ForeignPosition, PositionLost, PositionMoved
from levada.keeper import replaying
from levada.keeper.replaying import NotReplayable, replay, resolve
from levada.log.memory import MemoryLog
from levada.models import DeadLetter, GroupPosition


def row(number, topic=CHANGES):
    return OutboxRow(
        topic, "shop.Order", "c", f"[{number}]", None, "{}", "f", number, number, "2026", None
    )


@pytest.fixture
def log(monkeypatch):
    made = MemoryLog()
    made.append([row(n) for n in range(5)], source="default", expected=None, cursor="5")
    monkeypatch.setattr("levada.log.open_log", lambda: made)
    return made


class FakeStore:
    """Takes batches at a position; `moves` positions slip in before that many calls."""

    def __init__(self, position, moves=0):
        self.at = position
        self.moves = moves
        self.applied = []

    def position(self):
        return self.at

    def apply(self, batch, *, expected, skip=()):
        if self.moves:
            self.moves -= 1
            self.at = Position(self.at.epoch, self.at.topic, self.at.offset + 1)
            raise PositionMoved("another applier wrote")
        assert expected == self.at == batch.end
        self.applied.append([record.offset for record in batch if record.offset not in skip])
        return batch.end

    def close(self):
        pass


@pytest.fixture
def store(log, monkeypatch):
    made = FakeStore(Position(log.epoch, CHANGES, 3))
    monkeypatch.setattr("levada.stores.open_store", lambda alias, create: made)
    return made


def test_the_beginning_is_the_oldest_record_kept(log):
    assert resolve("beginning", CHANGES, log).offset == 0
    log.commit("x", log.end(CHANGES))
    log.prune(older_than_s=-1)
    assert resolve("beginning", CHANGES, log).offset == log.beginning(CHANGES).offset


def test_an_offset_and_a_position_mean_themselves(log):
    assert resolve("2", CHANGES, log) == Position(log.epoch, CHANGES, 2)
    assert resolve(f"{log.epoch}:{CHANGES}:5", CHANGES, log).offset == 5


@pytest.mark.parametrize("begin", ["6", "other:changes:1", "yesterday", "-1"])
def test_a_place_outside_the_log_is_refused(log, begin):
    with pytest.raises(ForeignPosition):
        resolve(begin, CHANGES, log)


def test_a_place_that_retention_passed_is_refused(log):
    log.prune(older_than_s=-1)
    assert log.beginning(CHANGES).offset > 0
    with pytest.raises(PositionLost, match="no longer in the log"):
        resolve("0", CHANGES, log)


@pytest.mark.django_db
def test_a_store_gets_the_records_up_to_where_it_is_and_stays_there(log, store):
    said = replay("analytics", "1")
    assert store.applied == [[1, 2]]
    assert "applied 2 records again" in said


@pytest.mark.django_db
def test_a_running_applier_may_move_the_store_meanwhile(log, store):
    store.moves = 2
    replay("analytics", "beginning")
    assert store.applied == [[0, 1, 2, 3, 4]]


@pytest.mark.django_db
def test_a_store_that_never_rests_is_given_up_with_advice(log, store, monkeypatch):
    monkeypatch.setattr(replaying, "ATTEMPTS", 2)
    store.moves = 2
    with pytest.raises(NotReplayable, match="levada rebuild analytics"):
        replay("analytics", "beginning")


@pytest.mark.django_db
def test_what_was_put_aside_stays_aside_unless_it_was_retried(log, store):
    for offset, state in ((0, "waiting"), (1, "dropped"), (2, "retried")):
        DeadLetter.objects.create(
            consumer="analytics", epoch=log.epoch, topic=CHANGES, offset=offset, state=state
        )
    replay("analytics", "beginning")
    assert store.applied == [[2]]


@pytest.mark.django_db
def test_a_store_that_was_never_filled_or_is_of_another_log_is_refused(log, store):
    store.at = Position("other", CHANGES, 3)
    with pytest.raises(ForeignPosition):
        replay("analytics", "beginning")
    store.at = None
    with pytest.raises(NotReplayable, match="never filled"):
        replay("analytics", "beginning")


@pytest.mark.django_db
def test_too_many_records_are_a_rebuilds_business(log, store, monkeypatch):
    monkeypatch.setattr(replaying, "MOST_RECORDS", 2)
    with pytest.raises(NotReplayable, match="3 records are more"):
        replay("analytics", "beginning")


@pytest.mark.django_db
def test_a_group_is_moved_back_in_the_source_and_in_the_log(log):
    log.commit("mail", log.end(CHANGES))
    said = replay("mail", "2")
    assert "will see 3 records again" in said
    assert log.committed("mail", CHANGES).offset == 2
    assert GroupPosition.objects.get(group="mail").offset == 2


@pytest.mark.django_db
def test_a_group_of_several_topics_must_say_which(log):
    log.append([row(9, "orders")], source="default", expected="5", cursor="9")
    log.commit("mail", log.end(CHANGES))
    log.commit("mail", log.end("orders"))
    with pytest.raises(NotReplayable, match=r"changes, orders.*--topic"):
        replay("mail", "beginning")
    replay("mail", "beginning", "orders")
    assert log.committed("mail", "orders").offset == 0
    replay("mail", f"{log.epoch}:{CHANGES}:1")
    assert log.committed("mail", CHANGES).offset == 1


@pytest.mark.django_db
def test_an_unknown_consumer_is_refused_with_those_there_are(log):
    log.commit("mail", log.end(CHANGES))
    with pytest.raises(NotReplayable, match=r"Stores: analytics; groups: mail"):
        replay("post", "beginning")
