"""Each operation of a migration, forwards and backwards on a table that is in use: rows stay."""

import datetime
import uuid
from decimal import Decimal

import pytest
from django.db import DEFAULT_DB_ALIAS, connections, migrations, models, transaction
from django.db.migrations.state import ProjectState
from django.db.models import CASCADE, CheckConstraint, F, Index, Q, UniqueConstraint, Value
from django.db.models.functions import Lower, Upper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from levada.stores.duckdb.shape import read_shape

PLANT = migrations.CreateModel(
    "Plant",
    [
        ("id", models.AutoField(primary_key=True)),
        ("name", models.CharField(max_length=50, unique=True)),
        ("height", models.PositiveIntegerField(null=True, db_index=True)),
        ("kind", models.CharField(max_length=9, db_default="herb", db_comment="herb or tree")),
        ("order", models.IntegerField(default=0)),
        ("note", models.TextField(default="", db_collation="nocase")),
        ("double", models.GeneratedField(
            expression=F("height") * 2, output_field=models.IntegerField(), db_persist=False
        )),
    ],
    options={
        "db_table_comment": "what grows",
        "indexes": [Index(Lower("note"), name="plant_note")],
        "constraints": [
            CheckConstraint(condition=Q(height__lt=1000), name="plant_low"),
            UniqueConstraint(fields=["name", "height"], name="plant_once"),
            UniqueConstraint(fields=["order"], condition=Q(kind="tree"), name="tree_order"),
        ],
    },
)  # fmt: skip
LEAF = migrations.CreateModel(
    "Leaf",
    [
        ("id", models.BigAutoField(primary_key=True)),
        ("plant", models.ForeignKey("garden.Plant", CASCADE)),
        ("friends", models.ManyToManyField("garden.Plant", related_name="+")),
    ],
)
ROWS = 'SELECT id, name, height, kind, "order", note FROM {table} ORDER BY id'

OPERATIONS = {
    "add nullable": migrations.AddField("Plant", "extra", models.IntegerField(null=True)),
    "add default": migrations.AddField("Plant", "extra", models.IntegerField(default=-7)),
    "add text": migrations.AddField(
        "Plant", "extra", models.CharField(max_length=9, default="5%'")
    ),
    "add blob": migrations.AddField("Plant", "extra", models.BinaryField(default=b"\x00'%")),
    "add date": migrations.AddField("Plant", "extra", models.DateField(default=datetime.date.min)),
    "add uuid": migrations.AddField("Plant", "extra", models.UUIDField(default=uuid.UUID(int=1))),
    "add decimal": migrations.AddField(
        "Plant",
        "extra",
        models.DecimalField(max_digits=5, decimal_places=2, default=Decimal("-1.50")),
    ),
    "add db_default": migrations.AddField(
        "Plant", "extra", models.TextField(db_default=Upper(Value("x")))
    ),
    "add unique": migrations.AddField(
        "Plant", "extra", models.CharField(max_length=9, null=True, unique=True)
    ),
    "add indexed": migrations.AddField(
        "Plant", "extra", models.IntegerField(default=1, db_index=True)
    ),
    "add checked": migrations.AddField(
        "Plant", "extra", models.PositiveSmallIntegerField(default=1)
    ),
    "add commented": migrations.AddField(
        "Plant", "extra", models.TextField(default="", db_comment="5%'")
    ),
    "add key": migrations.AddField(
        "Plant", "extra", models.ForeignKey("garden.Leaf", CASCADE, null=True)
    ),
    "add m2m": migrations.AddField("Plant", "extra", models.ManyToManyField("self")),
    "add generated": migrations.AddField(
        "Plant",
        "extra",
        models.GeneratedField(
            expression=Upper("kind"), output_field=models.TextField(), db_persist=False
        ),
    ),
    "remove indexed": migrations.RemoveField("Plant", "note"),
    "remove plain": migrations.RemoveField("Plant", "kind"),
    "rename checked": migrations.RenameField("Plant", "height", "tall"),
    "rename in expression": migrations.RenameField("Plant", "note", "lower"),
    "rename reserved": migrations.RenameField("Plant", "order", "select"),
    "rename conditional": migrations.RenameField("Plant", "kind", "order kind"),
    "rename unique": migrations.RenameField("Plant", "name", "title"),
    "rename key": migrations.RenameField("Plant", "id", "number"),
    "widen": migrations.AlterField("Plant", "order", models.BigIntegerField(default=0)),
    "integer to text": migrations.AlterField("Plant", "order", models.TextField(default="0")),
    "text to no check": migrations.AlterField(
        "Plant", "height", models.BigIntegerField(null=True, db_index=True)
    ),
    "longer text": migrations.AlterField(
        "Plant", "name", models.CharField(max_length=99, unique=True)
    ),
    "required": migrations.AlterField("Plant", "note", models.TextField(null=True)),
    "not unique": migrations.AlterField("Plant", "name", models.CharField(max_length=50)),
    "unique": migrations.AlterField(
        "Plant", "note", models.TextField(unique=True, db_collation="nocase")
    ),
    "no index": migrations.AlterField("Plant", "height", models.PositiveIntegerField(null=True)),
    "other collation": migrations.AlterField(
        "Plant", "note", models.TextField(default="", db_collation="de")
    ),
    "no database default": migrations.AlterField(
        "Plant", "kind", models.CharField(max_length=9, db_comment="")
    ),
    "other database default": migrations.AlterField(
        "Plant", "kind", models.CharField(max_length=9, db_default="x")
    ),
    "big key": migrations.AlterField("Plant", "id", models.BigAutoField(primary_key=True)),
    "plain key": migrations.AlterField("Plant", "id", models.IntegerField(primary_key=True)),
    "table": migrations.AlterModelTable("Plant", 'it\'s a "100%" table. (x ON y)'),
    "model": migrations.RenameModel("Plant", "Herb"),
    "m2m model": migrations.RenameModel("Leaf", "Needle"),
    "table comment": migrations.AlterModelTableComment("Plant", "5% 'quoted'"),
    "unique together": migrations.AlterUniqueTogether("Plant", {("kind", "name")}),
    "add index": migrations.AddIndex("Plant", Index(fields=["kind", "-order"], name="kind_index")),
    "add expression index": migrations.AddIndex(
        "Plant", Index(Upper("name").desc(), name="upper_name")
    ),
    "add conditional index": migrations.AddIndex(
        "Plant", Index(fields=["kind"], condition=Q(order=1), name="some")
    ),
    "remove index": migrations.RemoveIndex("Plant", "plant_note"),
    "rename index": migrations.RenameIndex("Plant", new_name="renamed", old_name="plant_note"),
    "add check": migrations.AddConstraint(
        "Plant", CheckConstraint(condition=~Q(name="5%") & Q(order__gte=0), name="it's low")
    ),
    "remove check": migrations.RemoveConstraint("Plant", "plant_low"),
    "add unique constraint": migrations.AddConstraint(
        "Plant", UniqueConstraint(fields=["note", "name"], name="u")
    ),
    "add expression constraint": migrations.AddConstraint(
        "Plant", UniqueConstraint(Lower("name"), name="u")
    ),
    "add nulls constraint": migrations.AddConstraint(
        "Plant", UniqueConstraint(fields=["height", "order"], nulls_distinct=False, name="u")
    ),
    "remove unique constraint": migrations.RemoveConstraint("Plant", "plant_once"),
    "remove conditional": migrations.RemoveConstraint("Plant", "tree_order"),
    "leaf's key": migrations.AlterField(
        "Leaf", "plant", models.OneToOneField("garden.Plant", CASCADE)
    ),
    "separate": migrations.SeparateDatabaseAndState(
        database_operations=[
            migrations.RunSQL(
                "ALTER TABLE garden_leaf ADD COLUMN z INTEGER",
                "ALTER TABLE garden_leaf DROP COLUMN z",
            )
        ],
        state_operations=[migrations.AddField("Leaf", "z", models.IntegerField(null=True))],
    ),
}
FIRST = {
    "remove indexed": [OPERATIONS["remove index"]],
    "remove plain": [OPERATIONS["remove conditional"]],
}
"""What `makemigrations` removes before a column: its constraints and indexes."""

LOSES = {"remove indexed": {5}, "remove plain": {3}, "integer to text": {4}}
"""Which columns of a row an operation cannot give back, or gives back as its default."""

UPDATE = migrations.RunSQL(
    "UPDATE garden_plant SET name = name; UPDATE garden_leaf SET plant_id = plant_id",
    migrations.RunSQL.noop,
)


class Garden:
    """Models, their tables with rows, and operations done to them one after the other."""

    def __init__(self, connection):
        self.connection = connection
        self.states = [ProjectState()]
        self.done = []
        self.do([PLANT, LEAF])
        with connection.cursor() as cursor:
            cursor.execute(
                'INSERT INTO garden_plant (name, height, kind, "order", note) VALUES '
                "('fern', 3, 'herb', 1, 'a'), ('oak', 900, 'tree', 1, 'B'), "
                "('elm', NULL, 'tree', 2, '5%')"
            )
            cursor.execute("INSERT INTO garden_leaf (plant_id) VALUES (1), (3)")
            cursor.execute("INSERT INTO garden_leaf_friends (leaf_id, plant_id) VALUES (1, 2)")
            cursor.execute("CREATE VIEW tall_plants AS SELECT id FROM garden_plant")

    def do(self, operations):
        """Run operations forwards in one transaction."""
        with self.connection.schema_editor() as editor:
            for operation in operations:
                before, after = self.states[-1], self.states[-1].clone()
                operation.state_forwards("garden", after)
                operation.database_forwards("garden", editor, before, after)
                self.states.append(after)
                self.done.append(operation)

    def undo(self, number):
        """Run the last `number` operations backwards in one transaction."""
        with self.connection.schema_editor() as editor:
            for _ in range(number):
                operation, after = self.done.pop(), self.states.pop()
                before = self.states[-1]
                operation.database_backwards("garden", editor, after, before)

    def rows(self, table="garden_plant"):
        with self.connection.cursor() as cursor:
            cursor.execute(ROWS.format(table=table))
            return cursor.fetchall()

    def leaves(self):
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT id, plant_id FROM garden_leaf ORDER BY id")
            leaves = cursor.fetchall()
            cursor.execute("SELECT leaf_id, plant_id FROM garden_leaf_friends")
            return leaves, cursor.fetchall()

    def shape(self):
        """Return what the tables are made of; columns may come back in another order."""
        found = []
        for table in ("garden_plant", "garden_leaf", "garden_leaf_friends"):
            with self.connection.cursor() as cursor:
                shape = read_shape(cursor, table, self.connection.ops.quote_name)
            parts = (shape.columns, shape.constraints, shape.indexes)
            found.append((table, shape.comment, *(sorted(map(str, part)) for part in parts)))
        return found

    def next_key(self):
        with self.connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO garden_plant (name, \"order\", note) VALUES ('x', 9, '') RETURNING id"
            )
            return cursor.fetchone()[0]


@pytest.fixture
def garden(django_db_blocker):
    """The garden in an empty database in memory."""
    name = f":memory:{uuid.uuid4().hex}"
    with django_db_blocker.unblock():
        connections.databases["duck"] = connections.configure_settings(
            {DEFAULT_DB_ALIAS: {}, "duck": {"ENGINE": "levada.stores.duckdb", "NAME": name}}
        )["duck"]
        connection = connections["duck"]
        yield Garden(connection)
        connection.close()
        connection.creation._destroy_test_db(name, 0)
        del connections["duck"], connections.databases["duck"]


def without(rows, columns):
    return [tuple(v for n, v in enumerate(row) if n not in columns) for row in rows]


@pytest.mark.parametrize("name", OPERATIONS)
def test_forwards_and_backwards_rows_and_table_are_the_same(garden, name):
    rows, leaves, shape = garden.rows(), garden.leaves(), garden.shape()
    lost = LOSES.get(name, ())
    for operations in ([OPERATIONS[name]], [UPDATE, OPERATIONS[name]]):
        operations = [*FIRST.get(name, ()), *operations]
        garden.do(operations)
        garden.undo(len(operations))
        assert without(garden.rows(), lost) == without(rows, lost)
        assert garden.leaves() == leaves
        assert garden.shape() == shape
    assert garden.next_key() == 4
    with garden.connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tall_plants")
        assert cursor.fetchone() == (4,)


TOGETHER = [
    "add default", "rename in expression", "widen", "not unique", "m2m model",
    "other database default", "big key", "table comment", "add index", "remove conditional",
    "remove unique constraint",
]  # fmt: skip


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.permutations(TOGETHER), touch=st.integers(0, len(TOGETHER)))
def test_many_operations_in_one_transaction_in_any_order(garden, order, touch):
    rows, leaves, shape = garden.rows(), garden.leaves(), garden.shape()
    operations = [OPERATIONS[name] for name in order]
    operations.insert(touch, migrations.RunSQL("UPDATE garden_plant SET kind = kind", ""))
    garden.do(operations)
    garden.undo(len(operations))
    assert (garden.rows(), garden.leaves(), garden.shape()) == (rows, leaves, shape)


def collected(garden, operation, before, after, forwards):
    """Return the statements `sqlmigrate` would print."""
    with garden.connection.schema_editor(collect_sql=True) as editor:
        if forwards:
            operation.database_forwards("garden", editor, before, after)
        else:
            operation.database_backwards("garden", editor, after, before)
    return [each for each in editor.collected_sql if not each.startswith("--")]


def run(garden, statements):
    with garden.connection.cursor() as cursor:
        for each in statements:
            cursor.execute(each.removesuffix(";"), None)


def test_sqlmigrate_prints_what_migrate_does(garden):
    rows, shape = garden.rows(), garden.shape()
    for name, operation in OPERATIONS.items():
        states, done = list(garden.states), list(garden.done)
        with transaction.atomic("duck"):
            garden.do(FIRST.get(name, ()))
            before, after = garden.states[-1], garden.states[-1].clone()
            operation.state_forwards("garden", after)
            between = garden.shape()
            with transaction.atomic("duck"):
                garden.do([operation])
                migrated = everything(garden)
                transaction.set_rollback(True, "duck")
            run(garden, collected(garden, operation, before, after, True))
            assert everything(garden) == migrated, name
            run(garden, collected(garden, operation, before, after, False))
            assert garden.shape() == between, name
            transaction.set_rollback(True, "duck")
        garden.states, garden.done = states, done
    assert (garden.rows(), garden.shape()) == (rows, shape)


def everything(garden):
    """Return the shapes and rows of all tables, whatever they are called."""
    found = []
    with garden.connection.cursor() as cursor:
        for table in garden.connection.introspection.table_names(cursor):
            shape = read_shape(cursor, table, garden.connection.ops.quote_name)
            parts = (shape.columns, shape.constraints, shape.indexes)
            columns = ", ".join(
                garden.connection.ops.quote_name(each) for each in sorted(shape.names())
            )
            cursor.execute(f"SELECT {columns} FROM {garden.connection.ops.quote_name(table)}")
            found.append(
                (table, shape.comment, *(sorted(map(str, part)) for part in parts),
                 cursor.fetchall())
            )  # fmt: skip
    return found
