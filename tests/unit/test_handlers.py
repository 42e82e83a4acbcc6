"""Handlers on a log in memory: order, retries, dead letters, and one transaction for all."""

import json
import threading

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

import levada
from levada.apply import handlers, subscriptions
from levada.apply.handlers import HandlerRunner
from levada.changes import Batch, OutboxRow, Position, Record
from levada.errors import (
    ConfigurationError,
    ForeignPosition,
    HandlerFailed,
    PositionMoved,
    UnknownModel,
)
from levada.log.memory import MemoryLog
from levada.models import DeadLetter, GroupPosition
from tests.shop.models import Tag


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Subscriptions of one test alone."""
    empty = subscriptions.Registry()
    monkeypatch.setattr(subscriptions, "registry", empty)
    monkeypatch.setattr(handlers, "registry", empty)
    return empty


@pytest.fixture
def log():
    return MemoryLog()


class Clock:
    """A clock that moves when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def append(log, *payloads, topic="paid", label="", op="m"):
    """Append one transaction of messages, or of row changes of `label`."""
    cursor = log.cursor("default")
    first = int(cursor or 0)
    rows = [
        OutboxRow(
            topic, label, op, json.dumps(n), None, json.dumps(payload), "", first, first + n,
            "2026-11-21T08:30:00.000000+00:00", None,
        )
        for n, payload in enumerate(payloads, 1)
    ]  # fmt: skip
    log.append(rows, source="default", expected=cursor, cursor=str(first + len(rows)))


def settle(runner, clock=None):
    """Step until there is nothing to do, moving the clock over every pause."""
    while runner.step() or (clock and runner.due_in_s() is not None):
        if clock and (due_in_s := runner.due_in_s()):
            clock.now += due_in_s
    runner.save()


def stored(group="mails", topic="paid"):
    return GroupPosition.objects.get(group=group, topic=topic)


# What a handler gets.


@pytest.mark.django_db
def test_a_handler_gets_each_message_in_order_as_a_change(log):
    seen = []
    levada.subscribe("paid", group="mails")(seen.append)
    append(log, {"order": 1}, {"order": 2})
    append(log, {"order": 3})

    settle(HandlerRunner("mails", log))

    assert [change.after for change in seen] == [{"order": 1}, {"order": 2}, {"order": 3}]
    assert isinstance(seen[0], levada.Change)
    assert seen[2].position == Position(log.epoch, "paid", 3)


@pytest.mark.django_db
def test_a_batch_handler_gets_lists_no_longer_than_it_asked_for(log):
    seen = []

    @levada.subscribe("paid", group="mails", batch=True, batch_rows=2)
    def mails(changes):
        seen.append([change.after for change in changes])

    append(log, 1, 2, 3, 4, 5)
    settle(HandlerRunner("mails", log))
    assert seen == [[1, 2], [3, 4], [5]]


@pytest.mark.django_db
def test_a_handler_of_one_model_gets_the_changes_of_that_model_alone(log):
    seen = []
    levada.subscribe("changes:shop.Order", group="mails")(seen.append)
    append(log, {"id": 1}, topic="changes", label="shop.Order", op="c")
    append(log, {"id": 2}, topic="changes", label="shop.Product", op="c")
    append(log, {"id": 3}, topic="changes", label="shop.Order", op="c")

    settle(HandlerRunner("mails", log))

    assert [change.after["id"] for change in seen] == [1, 3]
    assert stored(topic="changes").offset == 3


@pytest.mark.django_db
def test_of_a_forgotten_row_a_handler_hears_the_deletion_alone(log):
    """Its other records have no image left: a handler that reads one would call it poison."""
    seen = []

    @levada.subscribe("changes:shop.Order", group="mails", retries=1)
    def copy(change):
        seen.append((change.op, change.key, change.before if change.op == "d" else change.after))

    for op in "cud":
        append(log, {"id": 7}, topic="changes", label="shop.Order", op=op)
    assert log.forget("shop.Order", "1") == 3
    append(log, {"id": 8}, {"id": 9}, topic="changes", label="shop.Order", op="c")
    settle(HandlerRunner("mails", log))

    assert seen == [("d", (1,), None), ("c", (1,), {"id": 8}), ("c", (2,), {"id": 9})]
    assert stored(topic="changes").offset == 5
    assert not DeadLetter.objects.exists()


@pytest.mark.django_db
def test_handlers_of_one_group_share_a_topic_and_keep_its_order(log):
    seen = []
    levada.subscribe("changes:shop.Order", group="mails", batch=True)(
        lambda changes: seen.append(("order", len(changes)))
    )

    @levada.subscribe("changes:shop.Product", group="mails", batch=True)
    def products(changes):
        seen.append(("product", len(changes)))

    for label in ("shop.Order", "shop.Order", "shop.Product", "shop.Order"):
        append(log, {"id": 1}, topic="changes", label=label, op="c")
    settle(HandlerRunner("mails", log))
    assert seen == [("order", 2), ("product", 1), ("order", 1)]


@pytest.mark.django_db
def test_an_async_handlers_writes_join_the_transaction_of_its_position(log):
    @levada.subscribe("paid", group="mails", retries=1)
    async def mails(change):
        await Tag.objects.acreate(name=f"paid-{change.after}")
        if change.after == 2:
            raise ValueError("no")

    append(log, 1, 2)
    settle(HandlerRunner("mails", log))
    assert list(Tag.objects.values_list("name", flat=True)) == ["paid-1"]
    assert DeadLetter.objects.get().reason == "ValueError: no"


def test_portions_end_where_the_next_record_is_anothers():
    def subscription(label, batch_rows):
        return subscriptions.Subscription(
            handler=len, group="g", topic="changes", label=label, batch=True,
            batch_rows=batch_rows, retries=None, backoff_s=1, on_poison=None, start="end",
        )  # fmt: skip

    a, b = subscription("shop.Order", 2), subscription("shop.Tag", 9)
    labels = ["x", "shop.Order", "x", "shop.Order", "shop.Order", "shop.Tag", "shop.Tag", "x"]
    rows = [
        Record(n, "changes", label, "c", "[1]", None, "{}", "", 1, n, "", None)
        for n, label in enumerate(labels)
    ]
    batch = Batch(rows, Position("e", "changes", 0), Position("e", "changes", 8))

    def calls(singly_until=0):
        return [
            (each.subscription.label, [record.offset for record in each.records], each.end.offset)
            for each in handlers.portions(batch, [a, b], singly_until)
        ]

    assert calls() == [
        ("shop.Order", [1, 3], 4),
        ("shop.Order", [4], 5),
        ("shop.Tag", [5, 6], 7),
    ]
    assert calls(singly_until=6) == [
        ("shop.Order", [1], 2),
        ("shop.Order", [3], 4),
        ("shop.Order", [4], 5),
        ("shop.Tag", [5], 6),
        ("shop.Tag", [6], 7),
    ]


# Exactly once in effect.


@pytest.mark.django_db
def test_a_failing_handlers_writes_are_rolled_back_and_its_position_stays(log, clock):
    @levada.subscribe("paid", group="mails")
    def mails(change):
        Tag.objects.create(name=f"paid-{change.after}")
        if change.after == 2:
            raise ValueError("the mail server is away")

    append(log, 1, 2, 3)
    runner = HandlerRunner("mails", log, clock=clock)
    assert runner.step() == 1

    assert list(Tag.objects.values_list("name", flat=True)) == ["paid-1"]
    at = stored()
    assert (at.offset, at.tries, at.reason) == (1, 1, "ValueError: the mail server is away")


@pytest.mark.django_db(transaction=True)
def test_a_new_runner_goes_on_where_the_last_commit_was(log, clock):
    fails = [True]

    @levada.subscribe("paid", group="mails")
    def mails(change):
        Tag.objects.create(name=f"paid-{change.after}")
        if change.after == 2 and fails:
            raise ValueError

    append(log, 1, 2, 3)
    HandlerRunner("mails", log, clock=clock).step()
    fails.clear()
    settle(HandlerRunner("mails", log))
    assert list(Tag.objects.order_by("id").values_list("name", flat=True)) == [
        "paid-1",
        "paid-2",
        "paid-3",
    ]


@pytest.mark.django_db(transaction=True)
def test_a_runner_that_was_overtaken_changes_nothing_and_stops(log):
    calls = []

    @levada.subscribe("paid", group="mails")
    def mails(change):
        calls.append(change.after)
        Tag.objects.create(name=f"paid-{change.after}")

    append(log, 1)
    frozen, other = HandlerRunner("mails", log), HandlerRunner("mails", log)
    frozen.step()
    append(log, 2)
    other.step()
    with pytest.raises(PositionMoved, match="'mails' is no longer at"):
        frozen.step()
    assert calls == [1, 2]
    assert Tag.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_handler_that_swallows_an_error_that_broke_its_transaction_has_failed(log):
    Tag.objects.create(name="once")

    @levada.subscribe("paid", group="mails", retries=1)
    def mails(change):
        try:
            with transaction.atomic(savepoint=False):
                Tag.objects.create(name="once")
        except IntegrityError:
            pass

    append(log, 1)
    settle(HandlerRunner("mails", log))
    assert "broken its transaction" in DeadLetter.objects.get().reason
    assert stored().offset == 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_broken_transaction_that_django_did_not_notice_is_noticed(log):
    """PostgreSQL answers COMMIT of a broken transaction with a silent rollback."""

    @levada.subscribe("paid", group="mails", retries=1)
    def mails(change):
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1/0")
        except DatabaseError:
            pass

    append(log, 1)
    settle(HandlerRunner("mails", log))
    assert "broken its transaction" in DeadLetter.objects.get().reason
    assert stored().offset == 1


@pytest.mark.django_db(transaction=True)
def test_an_error_that_only_the_commit_finds_counts_as_the_handlers(log):
    from tests.shop.models import OrderLine

    @levada.subscribe("paid", group="mails", retries=1)
    def mails(change):
        OrderLine.objects.create(order_id=999_999, sku="nowhere")  # its key is checked at COMMIT

    append(log, 1)
    settle(HandlerRunner("mails", log))
    assert "IntegrityError" in DeadLetter.objects.get().reason
    assert OrderLine.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_commit_that_came_through_although_the_connection_broke_is_not_repeated(log, monkeypatch):
    calls = []
    levada.subscribe("paid", group="mails")(calls.append)
    runner = HandlerRunner("mails", log)
    runner.step()
    append(log, 1, 2)
    commit = connection.commit
    broken = []

    def commit_then_break():
        commit()
        if not broken:
            broken.append(True)
            raise DatabaseError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(connection, "commit", commit_then_break)
        settle(runner)
    assert [change.after for change in calls] == [1, 2]
    assert broken
    assert stored().offset == 2


# Retries and dead letters.


@pytest.mark.django_db
def test_a_failing_record_is_tried_with_growing_pauses_then_becomes_a_dead_letter(log, clock):
    tried_at = []

    @levada.subscribe("paid", group="mails", retries=4, backoff_s=0.5)
    def mails(change):
        if change.after == "bad":
            tried_at.append(clock.now)
            raise KeyError("address")

    append(log, "bad", "good")
    settle(HandlerRunner("mails", log, clock=clock), clock)

    assert tried_at == [0, 0.5, 1.5, 3.5]
    letter = DeadLetter.objects.get()
    assert (letter.consumer, letter.topic, letter.offset) == ("mails", "paid", 0)
    assert (letter.reason, letter.tries) == ("KeyError: 'address'", 4)
    assert Record(**json.loads(letter.record)).after == '"bad"'
    at = stored()
    assert (at.offset, at.tries, at.reason) == (2, 0, "")


@pytest.mark.django_db
def test_a_failing_record_holds_back_those_behind_it(log, clock):
    seen = []

    @levada.subscribe("paid", group="mails")
    def mails(change):
        seen.append(change.after)
        if len(seen) == 1:
            raise ValueError

    append(log, 1, 2)
    runner = HandlerRunner("mails", log, clock=clock)
    assert [runner.step() for _ in range(3)] == [0, 0, 0]
    assert seen == [1]
    assert runner.due_in_s() == 1.0
    settle(runner, clock)
    assert seen == [1, 1, 2]


@pytest.mark.django_db
def test_the_count_of_tries_survives_a_restart(log, clock):
    @levada.subscribe("paid", group="mails", retries=2, backoff_s=0)
    def mails(change):
        raise ValueError

    append(log, 1)
    HandlerRunner("mails", log).step()
    assert not DeadLetter.objects.exists()
    HandlerRunner("mails", log).step()
    assert DeadLetter.objects.get().tries == 2


@pytest.mark.django_db
def test_of_a_failing_batch_only_the_guilty_record_becomes_a_dead_letter(log, clock):
    handled = []

    @levada.subscribe("paid", group="mails", batch=True, retries=2)
    def mails(changes):
        if any(change.after == 3 for change in changes):
            raise ValueError("three")
        handled.append([change.after for change in changes])

    append(log, 1, 2, 3, 4)
    settle(HandlerRunner("mails", log, clock=clock), clock)
    assert handled == [[1], [2], [4]]
    assert [letter.offset for letter in DeadLetter.objects.all()] == [2]


@pytest.mark.django_db
def test_a_group_told_to_halt_halts_and_writes_no_dead_letter(log):
    @levada.subscribe("paid", group="mails", retries=1, on_poison="halt")
    def mails(change):
        raise ValueError("no")

    append(log, 1)
    with pytest.raises(HandlerFailed, match="halts there"):
        HandlerRunner("mails", log).step()
    assert not DeadLetter.objects.exists()
    assert stored().offset == 0


@pytest.mark.django_db
def test_a_dead_letter_retried_by_a_person_runs_the_handler_once_more(log):
    fails = [True]

    @levada.subscribe("paid", group="mails", retries=1)
    def mails(change):
        Tag.objects.create(name=f"paid-{change.after}")
        if fails:
            raise ValueError("no")

    append(log, 7)
    settle(HandlerRunner("mails", log))
    letter = DeadLetter.objects.get()
    with pytest.raises(ValueError, match="no"):
        handlers.retry(letter)
    letter.refresh_from_db()
    assert (letter.state, Tag.objects.count()) == ("waiting", 0)

    fails.clear()
    handlers.retry(letter)
    assert (letter.state, Tag.objects.get().name) == ("retried", "paid-7")


# Where a group is.


@pytest.mark.django_db
def test_a_new_group_begins_at_the_oldest_record_or_at_the_end(log):
    late, early = [], []
    levada.subscribe("paid", group="late", start="end")(late.append)
    levada.subscribe("paid", group="early")(early.append)
    append(log, 1)
    runners = [HandlerRunner("late", log), HandlerRunner("early", log)]
    for runner in runners:
        settle(runner)
    append(log, 2)
    for runner in runners:
        settle(runner)
    assert [change.after for change in late] == [2]
    assert [change.after for change in early] == [1, 2]


@pytest.mark.django_db
def test_retention_waits_for_a_group_from_its_first_look_on(log):
    levada.subscribe("paid", group="mails", backoff_s=60)(lambda change: 1 / 0)
    append(log, 1, 2)
    runner = HandlerRunner("mails", log)
    runner.step()
    assert log.prune(older_than_s=0) == 0
    assert log.committed("mails", "paid") == Position(log.epoch, "paid", 0)


@pytest.mark.django_db
def test_the_log_learns_what_a_group_has_finished(log):
    levada.subscribe("paid", group="mails")(lambda change: None)
    append(log, 1, 2)
    settle(HandlerRunner("mails", log))
    assert log.committed("mails", "paid") == Position(log.epoch, "paid", 2)
    assert log.prune(older_than_s=0) == 2


@pytest.mark.django_db
def test_records_of_others_do_not_write_to_the_source_each_time(
    log, clock, django_assert_num_queries
):
    levada.subscribe("changes:shop.Order", group="mails")(lambda change: None)
    runner = HandlerRunner("mails", log, clock=clock)
    runner.step()
    with django_assert_num_queries(0):
        for _ in range(3):
            append(log, {}, topic="changes", label="shop.Product", op="c")
            assert runner.step() == 1
    clock.now += 2
    runner.step()
    assert stored(topic="changes").offset == 3


@pytest.mark.django_db
def test_a_group_of_another_log_is_not_moved_silently(log):
    levada.subscribe("paid", group="mails")(lambda change: None)
    settle(HandlerRunner("mails", log))
    with pytest.raises(ForeignPosition, match="levada replay mails"):
        HandlerRunner("mails", MemoryLog()).step()


@pytest.mark.django_db
def test_a_replay_handles_the_records_again(log):
    seen = []
    levada.subscribe("paid", group="mails")(lambda change: seen.append(change.after))
    append(log, 1, 2)
    settle(HandlerRunner("mails", log))
    handlers.move("mails", Position(log.epoch, "paid", 1), log)
    settle(HandlerRunner("mails", log))
    assert seen == [1, 2, 2]
    with pytest.raises(ForeignPosition):
        handlers.move("mails", Position("another", "paid", 1), log)


@pytest.mark.django_db(transaction=True)
def test_a_running_runner_handles_what_comes_and_stops_when_told(log):
    handled = threading.Event()
    levada.subscribe("paid", group="mails")(lambda change: handled.set())
    stop = threading.Event()
    runner = HandlerRunner("mails", log)

    def run():
        runner.run(stop)
        connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        append(log, 1)
        assert handled.wait(30)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert stored().offset == 1


# Subscribing.


def test_a_group_cannot_handle_a_record_twice():
    levada.subscribe("changes:shop.Order", group="g")(lambda change: None)
    levada.subscribe("changes:shop.Tag", group="g")(len)
    with pytest.raises(ConfigurationError, match="would get 'changes' twice"):
        levada.subscribe("changes", group="g")(print)
    levada.subscribe("changes", group="another")(print)


def test_a_module_imported_again_replaces_its_subscriptions(registry):
    def handler(change): ...

    levada.subscribe("paid", group="g")(handler)
    levada.subscribe("paid", group="g")(handler)
    assert len(registry.of("g")) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"group": ""}, "group=''"),
        ({"group": "analytics"}, "the name of a database"),
        ({"group": "g", "retries": 0}, "retries=0"),
        ({"group": "g", "batch_rows": 0}, "batch_rows=0"),
        ({"group": "g", "backoff_s": -1}, "backoff_s=-1"),
        ({"group": "g", "on_poison": "ignore"}, "on_poison='ignore'"),
        ({"group": "g", "start": "now"}, "start='now'"),
    ],
)
def test_arguments_that_cannot_work_are_named(arguments, said):
    with pytest.raises(ConfigurationError, match=said):
        levada.subscribe("paid", **arguments)


@pytest.mark.parametrize("topic", ["", None, "paid:shop.Order", "changes:Order", "changes:"])
def test_a_selector_that_is_none_is_refused(topic):
    with pytest.raises(ConfigurationError, match="is no topic"):
        levada.subscribe(topic, group="g")


def test_only_functions_can_subscribe():
    with pytest.raises(ConfigurationError, match="is no function"):
        levada.subscribe("paid", group="g")("send")


def test_a_subscription_to_a_model_that_is_not_captured_is_refused(log):
    levada.subscribe("changes:auth.User", group="g")(lambda change: None)
    with pytest.raises(UnknownModel, match=r"auth\.User"):
        HandlerRunner("g", log)


def test_a_group_without_handlers_is_named(log):
    with pytest.raises(ConfigurationError, match="the groups are: none"):
        HandlerRunner("nobody", log)
