"""The tables Levada keeps in the source database."""

from typing import Any

from django.db import models
from django.utils import timezone

from ..changes import Position


class CurrentTransaction(models.Func):
    """
    The number of the transaction that is running: the 64-bit xid on PostgreSQL, else NULL.

    SQLite has no such number; there Django's connections write one of their own.
    """

    function = None
    output_field = models.BigIntegerField(null=True)
    allowed_default = True

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **extra: Any) -> Any:
        return "NULL", []

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return "(pg_current_xact_id()::text::bigint)", []


class Outbox(models.Model):
    """
    One captured change, or one published message, waiting for the relay.

    Filled by triggers and by `levada.publish()` in the transaction of the
    change itself; emptied by the relay once the log holds the record. The
    columns are those of `levada.changes.OutboxRow`; `id` is its `source_id`.
    The id must never be handed out twice, so on SQLite it is AUTOINCREMENT,
    as Django makes every automatic key there.
    """

    id = models.BigAutoField(primary_key=True)
    topic = models.CharField(max_length=200, default="changes")
    label = models.CharField(max_length=200, blank=True, default="")
    op = models.CharField(max_length=1)
    key = models.TextField(null=True)  # noqa: DJ001 (null: a truncate has no key)
    before = models.TextField(null=True)  # noqa: DJ001 (null: an insert has no before)
    after = models.TextField(null=True)  # noqa: DJ001 (null: a delete has no after)
    fingerprint = models.CharField(max_length=12, blank=True, default="")
    transaction = models.BigIntegerField(null=True, db_default=CurrentTransaction())
    changed_at = models.CharField(max_length=40)
    context = models.TextField(null=True)  # noqa: DJ001

    class Meta:
        db_table = "levada_outbox"
        verbose_name_plural = "outbox"

    def __str__(self) -> str:
        return f"{self.id} {self.op} {self.label or self.topic} {self.key}"


class RelayCursor(models.Model):
    """
    How far the outbox was emptied on the word of one log, by the log's epoch.

    A log that knows less than that was cut short or restored from an older
    copy: the rows in between exist nowhere any more.
    """

    epoch = models.CharField(max_length=40, primary_key=True)
    cursor = models.TextField()

    class Meta:
        db_table = "levada_relay"

    def __str__(self) -> str:
        return f"{self.epoch} {self.cursor}"


class ReplicatedTable(models.Model):
    """
    The shape of one captured table, written when its triggers are installed.

    A keeper reads it instead of trusting the models it was started with.
    """

    label = models.CharField(max_length=200, primary_key=True)
    fingerprint = models.CharField(max_length=12)
    spec = models.TextField()
    installed_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "levada_table"

    def __str__(self) -> str:
        return self.label


class GroupPosition(models.Model):
    """
    How far one consumer group of handlers has come in one topic.

    It moves in the transaction of the handler's own writes, so both happen or
    neither. `tries` and `reason` speak of the record at `offset`, if it failed.
    """

    group = models.CharField(max_length=200)
    topic = models.CharField(max_length=200)
    epoch = models.CharField(max_length=40)
    offset = models.BigIntegerField()
    tries = models.PositiveIntegerField(default=0)
    reason = models.TextField(blank=True, default="")
    moved_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "levada_group_position"
        constraints = [
            models.UniqueConstraint(fields=["group", "topic"], name="levada_group_position_once")
        ]

    def __str__(self) -> str:
        return f"{self.group} {self.position}"

    @property
    def position(self) -> Position:
        """The same as a position of the log."""
        return Position(self.epoch, self.topic, self.offset)


class DeadLetter(models.Model):
    """
    A record that a store or handler could not take, kept for a person to decide.

    Written before the consumer's position moves on; (consumer, epoch, topic,
    offset) is unique, so a crash in between writes it once.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "waiting"
        RETRIED = "retried", "retried"
        DROPPED = "dropped", "dropped"

    consumer = models.CharField(max_length=200, help_text="A store's alias or a consumer group.")
    epoch = models.CharField(max_length=40)
    topic = models.CharField(max_length=200)
    offset = models.BigIntegerField()
    label = models.CharField(max_length=200, blank=True)
    key = models.TextField(blank=True)
    record = models.TextField(help_text="The whole record, as JSON.")
    reason = models.TextField()
    tries = models.PositiveIntegerField(default=1)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "levada_dead_letter"
        constraints = [
            models.UniqueConstraint(
                fields=["consumer", "epoch", "topic", "offset"], name="levada_dead_letter_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.consumer} {self.topic}:{self.offset}"


class VerifiedTable(models.Model):
    """
    What the last `verify` of one table in one store found.

    `position` is where source and store were compared; a table that was
    changed since is not thereby wrong, only not looked at again.
    """

    store = models.CharField(max_length=200)
    label = models.CharField(max_length=200)
    equal = models.BooleanField()
    source_rows = models.BigIntegerField()
    differences = models.BigIntegerField(default=0)
    position = models.CharField(max_length=300, blank=True)
    verified_at = models.DateTimeField()

    class Meta:
        db_table = "levada_verified"
        constraints = [
            models.UniqueConstraint(fields=["store", "label"], name="levada_verified_once")
        ]

    def __str__(self) -> str:
        return f"{self.store} {self.label} {'equal' if self.equal else 'differs'}"
