"""Producer cursors: which transactions a snapshot sees, and which cursor is later."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levada.errors import ForeignPosition
from levada.outbox.cursors import NOTHING, IdCursor, Snapshot, SnapshotCursor
from levada.outbox.postgresql import in_commit_order
from levada.outbox.sqlite import last_border


@st.composite
def histories(draw):
    """Transactions that begin and end at random; a snapshot after each event, oldest first."""
    running, next_number, moments = [], 100, []
    for begins in draw(st.lists(st.booleans(), max_size=30)):
        if begins or not running:
            running.append(next_number)
            next_number += 1
        else:
            running.pop(draw(st.integers(0, len(running) - 1)))
        moments.append(Snapshot(min(running, default=next_number), next_number, tuple(running)))
    return moments


@settings(deadline=None)
@given(histories())
def test_a_later_snapshot_covers_every_earlier_one(moments):
    for at, earlier in enumerate(moments):
        for later in moments[at:]:
            assert later.covers(earlier)
            assert later.covers(NOTHING)
            assert SnapshotCursor(later).reaches(SnapshotCursor(earlier))


@settings(deadline=None)
@given(histories())
def test_covering_means_seeing_all_that_the_other_sees(moments):
    for one in moments:
        for other in moments:
            seen = {x for x in range(90, 140) if one.sees(x)}
            assert one.covers(other) == (seen >= {x for x in range(90, 140) if other.sees(x)})


@settings(deadline=None)
@given(histories())
def test_a_cursor_reads_back_as_it_was_written(moments):
    for moment in moments:
        assert Snapshot.parse(str(moment)) == moment
        for cursor in (SnapshotCursor(moment), SnapshotCursor(NOTHING, moment, 7, 3)):
            assert SnapshotCursor.parse(str(cursor)) == cursor


def test_a_part_of_a_window_is_later_than_its_beginning_and_earlier_than_its_end():
    start, end = Snapshot(5, 5, ()), Snapshot(9, 9, ())
    steps = [
        SnapshotCursor(start),
        SnapshotCursor(start, end, 0, 4),
        SnapshotCursor(start, end, 10, 0),
        SnapshotCursor(start, end, 10, 12),
        SnapshotCursor(end),
    ]
    for at, earlier in enumerate(steps):
        for later in steps[at:]:
            assert later.reaches(earlier)
        for before in steps[:at]:
            assert not before.reaches(earlier)


@pytest.mark.parametrize("text", ["", "7", "a:b:", "1:2", "1:2:3:4", "1:2:/3", "1:2:/x/3/4"])
def test_what_is_no_snapshot_is_refused(text):
    with pytest.raises(ForeignPosition, match="PostgreSQL"):
        SnapshotCursor.parse(text)


@pytest.mark.parametrize("text", ["", "a", "1:2:", "1/2", "1/2/3/4"])
def test_what_is_no_id_is_refused(text):
    with pytest.raises(ForeignPosition, match="SQLite"):
        IdCursor.parse(text)


@pytest.mark.parametrize(("text", "relayed"), [(None, 0), ("7", 7), ("7/20/11", 11)])
def test_an_id_cursor_knows_what_is_relayed(text, relayed):
    assert IdCursor.parse(text).relayed == relayed


def row(number, transaction, key=0):
    return ("changes", "", "u", key, None, None, "", transaction, number, "", None)


@st.composite
def schedules(draw):
    """
    Rows written under locks: who writes a key holds it until its commit.

    Returns the rows in the order of their ids, and each key's writers in the order they wrote.
    """
    rows, holders, transactions, writers = [], {}, {}, {}
    for number in range(1, draw(st.integers(0, 40)) + 1):
        session, key = draw(st.integers(0, 4)), draw(st.integers(0, 3))
        holder = holders.get(key)
        if holder is not None and holder != session:
            # The lock's holder commits first: that is what a real session would wait for.
            holders = {k: s for k, s in holders.items() if s != holder}
            transactions.pop(holder, None)
        holders[key] = session
        transaction = transactions.setdefault(session, 1000 + number)
        rows.append(row(number, transaction, key))
        writers.setdefault(key, []).append(number)
    return rows, writers


@settings(deadline=None)
@given(schedules(), st.randoms())
def test_commit_order_keeps_keys_in_order_and_transactions_together(schedule, rng):
    rows, writers = schedule
    shuffled = rows[:]
    rng.shuffle(shuffled)
    ordered = in_commit_order(shuffled)
    for key, numbers in writers.items():
        assert [each[8] for each in ordered if each[3] == key] == numbers
    transactions = [each[7] for each in ordered]
    borders = sum(a != b for a, b in itertools.pairwise(transactions))
    assert borders == max(0, len(set(transactions)) - 1)


@pytest.mark.parametrize(
    ("transactions", "border"),
    [
        ([], 0),
        ([1], 0),
        ([1, 1], 0),
        ([1, 2], 1),
        ([1, 1, 2, 2, 3], 4),
        ([None, None], 0),
        ([1, None], 0),
        ([None, 1], 0),
        ([1, 2, None, None], 1),
    ],
)
def test_a_border_is_sure_only_between_two_known_transactions(transactions, border):
    assert last_border([row(n, number) for n, number in enumerate(transactions)]) == border
