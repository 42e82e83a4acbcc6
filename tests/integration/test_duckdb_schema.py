"""Migrations' operations on DuckDB: rows, keys, constraints and indexes survive each of them."""

import datetime
import re
from contextlib import nullcontext

import pytest
from django.core.management import call_command
from django.db import (
    DatabaseError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    connections,
    models,
    transaction,
)
from django.db.models import CheckConstraint, F, Index, Q, UniqueConstraint
from django.db.models.functions import Lower
from django.test.utils import CaptureQueriesContext, isolate_apps

import levada.stores.duckdb.fields
from levada.stores.duckdb import fields
from tests.integration.test_duckdb_backend import duck  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("duck")


def plant_model():
    class Plant(models.Model):
        name = models.CharField(max_length=50, unique=True)
        height = models.PositiveIntegerField(null=True, db_index=True)
        note = models.TextField(default="")

        class Meta:
            app_label = "garden"
            constraints = [
                UniqueConstraint(fields=["name", "height"], name="plant_once"),
                CheckConstraint(condition=Q(height__lt=1000), name="plant_low"),
            ]
            indexes = [Index(fields=["note"], name="plant_note")]

        def __str__(self):
            return self.name

    return Plant


@pytest.fixture
def connection():
    return connections["duck"]


@pytest.fixture
def plant(connection):
    """A table with two rows, a unique column, a check, a unique constraint and an index."""
    with isolate_apps("tests"):
        model = plant_model()
        with connection.schema_editor() as editor:
            editor.create_model(model)
        model.objects.using("duck").create(name="fern", height=3)
        model.objects.using("duck").create(name="oak", height=900)
        yield model


def rows(connection, columns="*"):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM garden_plant ORDER BY id")
        return cursor.fetchall()


def constraints(connection):
    with connection.cursor() as cursor:
        return connection.introspection.get_constraints(cursor, "garden_plant")


def field(model, name, new):
    new.set_attributes_from_name(name)
    new.model = model
    return new


def change(connection, model, name, new, new_name=None):
    new.set_attributes_from_name(new_name or name)
    new.model = model
    with connection.schema_editor() as editor:
        editor.alter_field(model, model._meta.get_field(name), new, strict=True)


def insert_fails(connection, values):
    with connection.cursor() as cursor, pytest.raises(IntegrityError):
        cursor.execute(f"INSERT INTO garden_plant (name, height, note) VALUES {values}")


def test_what_a_model_declares_is_there(connection, plant):
    found = constraints(connection)
    assert found["plant_once"]["unique"]
    assert found["plant_once"]["columns"] == ["name", "height"]
    assert found["plant_note"]["index"]
    insert_fails(connection, "('fern', 4, '')")
    insert_fails(connection, "('elm', -1, '')")
    insert_fails(connection, "('elm', 1000, '')")


@pytest.mark.parametrize(
    ("new", "value"),
    [
        (models.IntegerField(null=True), None),
        (models.IntegerField(default=7), 7),
        (models.CharField(max_length=9, default="it's 5%"), "it's 5%"),
        (models.IntegerField(db_default=8), 8),
        (models.BooleanField(null=True, db_index=True), None),
        (models.BinaryField(default=b"\x00'%"), b"\x00'%"),
    ],
)
def test_an_added_column_holds_its_default(connection, plant, new, value):
    with connection.schema_editor() as editor:
        editor.add_field(plant, field(plant, "extra", new))
    assert rows(connection, "name, extra") == [("fern", value), ("oak", value)]
    assert {"plant_once", "plant_note"} <= set(constraints(connection))
    insert_fails(connection, "('fern', 4, '')")


def test_an_added_generated_column_computes(connection, plant):
    double = models.GeneratedField(
        expression=F("height") * 2, output_field=models.IntegerField(), db_persist=False
    )
    with connection.schema_editor() as editor:
        double.contribute_to_class(plant, "double")
        editor.add_field(plant, double)
    assert rows(connection, "double") == [(6,), (1800,)]
    change(connection, plant, "note", models.TextField(null=True))
    assert rows(connection, "double") == [(6,), (1800,)]


def test_a_removed_column_takes_its_constraints_with_it(connection, plant):
    with connection.schema_editor() as editor:
        editor.remove_field(plant, plant._meta.get_field("height"))
    assert rows(connection) == [(1, "fern", ""), (2, "oak", "")]
    assert set(constraints(connection)) == {
        "garden_plant_id_pkey",
        "garden_plant_name_key",
        "plant_note",
    }


def test_a_renamed_column_keeps_rows_checks_and_indexes(connection, plant):
    change(
        connection, plant, "height", models.PositiveIntegerField(null=True, db_index=True), "tall"
    )
    assert rows(connection, "tall") == [(3,), (900,)]
    assert constraints(connection)["plant_once"]["columns"] == ["name", "tall"]
    with connection.cursor() as cursor, pytest.raises(IntegrityError):
        cursor.execute("INSERT INTO garden_plant (name, tall, note) VALUES ('elm', 1000, '')")
    with connection.cursor() as cursor, pytest.raises(IntegrityError):
        cursor.execute("INSERT INTO garden_plant (name, tall, note) VALUES ('elm', -1, '')")


def test_a_changed_type_converts_the_rows(connection, plant):
    with connection.schema_editor() as editor:
        editor.remove_constraint(plant, plant._meta.constraints[1])
    change(connection, plant, "height", models.CharField(max_length=5, null=True))
    assert rows(connection, "height") == [("3",), ("900",)]
    with connection.cursor() as cursor:  # the check that it is positive is gone with its type
        columns = connection.introspection.get_table_description(cursor, "garden_plant")
    assert {each.name: each.type_code for each in columns}["height"] == "VARCHAR"


def test_nullable_to_required_fills_the_gaps(connection, plant):
    plant.objects.using("duck").create(name="moss")
    change(connection, plant, "height", models.PositiveIntegerField(default=1, db_index=True))
    assert rows(connection, "height") == [(3,), (900,), (1,)]
    insert_fails(connection, "('elm', NULL, '')")


def test_uniqueness_comes_and_goes(connection, plant):
    change(connection, plant, "name", models.CharField(max_length=50))
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO garden_plant (name, height, note) VALUES ('fern', 4, 'x')")
        cursor.execute("DELETE FROM garden_plant WHERE height = 4")
    change(connection, plant, "note", models.TextField(null=True))
    assert "plant_note" in constraints(connection)


def test_checks_are_added_and_removed_by_their_expression(connection, plant):
    low, high = plant._meta.constraints[1], CheckConstraint(condition=Q(height__gt=2), name="h")
    with connection.schema_editor() as editor:
        editor.remove_constraint(plant, low)
        editor.add_constraint(plant, high)
    insert_fails(connection, "('elm', 2, '')")
    plant.objects.using("duck").create(name="redwood", height=1100)
    with connection.schema_editor() as editor:
        editor.remove_constraint(plant, high)
    plant.objects.using("duck").create(name="moss", height=1)


def test_a_renamed_table_keeps_everything(connection, plant):
    with connection.schema_editor() as editor:
        editor.alter_db_table(plant, "garden_plant", "garden_herb")
    plant._meta.db_table = "garden_herb"
    assert plant.objects.using("duck").create(name="moss").pk == 3
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "garden_herb")
    assert {"plant_once", "plant_note"} <= set(found)


def test_keys_go_on_where_they_were_after_a_remake(connection, plant):
    change(connection, plant, "note", models.TextField(null=True))
    assert plant.objects.using("duck").create(name="moss", note="x").pk == 3


def test_a_changed_default_leaves_the_table_alone(connection, plant):
    with CaptureQueriesContext(connection) as captured:
        change(connection, plant, "note", models.TextField(default="other"))
    assert [each["sql"] for each in captured if each["sql"] not in ("BEGIN", "COMMIT")] == []


def test_a_failed_migration_leaves_the_table_as_it_was(connection, plant):
    before = constraints(connection)

    def fail():
        with connection.schema_editor() as editor:
            editor.remove_field(plant, plant._meta.get_field("height"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert constraints(connection) == before
    assert rows(connection, "height") == [(3,), (900,)]


def test_deleting_a_model_drops_its_sequence(connection, plant):
    with connection.schema_editor() as editor:
        editor.delete_model(plant)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM duckdb_sequences() WHERE sequence_name LIKE 'garden%'")
        assert cursor.fetchone() == (0,)


def run(connection, *statements):
    with connection.cursor() as cursor:
        for each in statements:
            cursor.execute(each)


def test_a_broken_check_is_named(connection, plant):
    assert constraints(connection)["plant_low"]["check"]
    with connection.cursor() as cursor, pytest.raises(IntegrityError, match="plant_low"):
        cursor.execute("INSERT INTO garden_plant (name, height, note) VALUES ('elm', 1000, '')")


def test_a_check_that_is_not_there_cannot_be_removed(connection, plant):
    absent = CheckConstraint(condition=Q(height__gt=2), name="absent")
    with (
        pytest.raises(ProgrammingError, match="no check constraint 'absent'"),
        connection.schema_editor() as editor,
    ):
        editor.remove_constraint(plant, absent)


def test_a_condition_makes_only_its_rows_unique(connection, plant):
    with connection.schema_editor() as editor:
        editor.add_constraint(
            plant,
            UniqueConstraint(fields=["note"], condition=Q(height__gte=100), name="one_tall"),
        )
    found = constraints(connection)["one_tall"]
    assert (found["columns"], found["unique"]) == (["note"], False)
    assert found["definition"].startswith("CREATE UNIQUE INDEX one_tall")
    plants = plant.objects.using("duck")
    plants.create(name="moss", height=3)
    with pytest.raises(IntegrityError):
        plants.create(name="elm", height=100)
    with transaction.atomic("duck"):  # the condition changes hands
        plants.filter(name="oak").update(height=3)
        plants.filter(name="fern").update(height=900)
    with pytest.raises(IntegrityError):
        plants.filter(name="moss").update(height=900)


@isolate_apps("tests")
def test_conflicts_with_an_expression_are_not_ignored_but_refused(connection):
    class Tall(models.Model):
        name = models.TextField()

        class Meta:
            app_label = "garden"
            constraints = [UniqueConstraint(Lower("name"), name="one_name")]

        def __str__(self):
            return self.name

    with connection.schema_editor() as editor:
        editor.create_model(Tall)
    tall = Tall.objects.using("duck")
    tall.bulk_create([Tall(pk=1, name="Oak")])
    with pytest.raises(NotSupportedError, match="'one_name' of garden"):
        tall.bulk_create([Tall(name="oak")], ignore_conflicts=True)
    tall.bulk_create(
        [Tall(pk=1, name="oak")],
        update_conflicts=True,
        unique_fields=["pk"],
        update_fields=["name"],
    )
    assert tall.get().name == "oak"


def test_nulls_are_equal_where_the_constraint_says_so(connection, plant):
    with connection.schema_editor() as editor:
        editor.add_constraint(
            plant, UniqueConstraint(fields=["height", "note"], nulls_distinct=False, name="one")
        )
    assert constraints(connection)["one"]["columns"] == ["height", "note"]
    plants = plant.objects.using("duck")
    plants.create(name="moss", height=None)
    plants.create(name="lily", height=None, note="other")
    with pytest.raises(IntegrityError):
        plants.create(name="elm", height=None)


def test_keys_and_unique_values_may_come_back_within_a_transaction(connection, plant):
    with transaction.atomic("duck"):
        run(
            connection,
            "DELETE FROM garden_plant WHERE name = 'fern'",
            "INSERT INTO garden_plant (id, name, note) VALUES (1, 'fern', 'again')",
            "UPDATE garden_plant SET name = 'x' WHERE id = 1",
            "UPDATE garden_plant SET name = 'fern' WHERE id = 2",
            "UPDATE garden_plant SET name = 'oak' WHERE id = 1",
            "UPDATE garden_plant SET id = 3 - id",
        )
    assert rows(connection, "id, name") == [(1, "fern"), (2, "oak")]


def test_one_update_moves_unique_values_through_2048_rows_and_no_more(connection):
    run(connection, "CREATE TABLE n AS SELECT range AS a FROM range(2048)")
    run(connection, "CREATE UNIQUE INDEX n_a ON n (a)", "UPDATE n SET a = a + 1")
    run(connection, "INSERT INTO n VALUES (2049)")
    with connection.cursor() as cursor, pytest.raises(IntegrityError):
        cursor.execute("UPDATE n SET a = a + 1")


def test_a_table_with_foreign_keys_of_another_client_is_not_made_anew(connection, plant):
    run(connection, "CREATE TABLE leaf (plant BIGINT REFERENCES garden_plant (id))")
    with connection.cursor() as cursor:
        relations = connection.introspection.get_relations(cursor, "leaf")
    assert relations == {"plant": ("id", "garden_plant")}
    with (
        pytest.raises(NotSupportedError, match="a foreign key of leaf refers to it"),
        connection.schema_editor() as editor,
    ):
        editor.remove_constraint(plant, plant._meta.constraints[1])
    assert len(rows(connection)) == 2


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM leaf; DELETE FROM garden_plant", "UPDATE garden_plant SET name = name"],
)
def test_foreign_keys_of_duckdb_refuse_what_django_does(connection, plant, change):
    """Why the backend makes none: a cascade in one transaction, and saving a referenced row."""
    run(connection, "CREATE TABLE leaf (plant BIGINT REFERENCES garden_plant (id))")
    run(connection, "INSERT INTO leaf VALUES (1)")
    with pytest.raises(IntegrityError, match="foreign key"), transaction.atomic("duck"):
        run(connection, *change.split("; "))


@pytest.mark.parametrize("name", ["a\"b'c", "a.b, (c;--", "select", "COLLATE", "a\nb", "é" * 200])
def test_any_name_goes(connection, name):
    with isolate_apps("tests"):

        class Odd(models.Model):
            one = models.CharField(max_length=9, db_column=name, db_collation="nocase", unique=True)
            two = models.PositiveIntegerField(db_column=f"{name}2", db_index=True, null=True)

            class Meta:
                app_label = "garden"
                db_table = f"t_{name}"
                indexes = [Index(Lower("one"), name="i")]
                constraints = [
                    UniqueConstraint(fields=["two"], condition=Q(one="x"), name="u"),
                    UniqueConstraint(fields=["two", "one"], nulls_distinct=False, name="n"),
                    CheckConstraint(condition=Q(two__lt=9) & ~Q(one="%"), name="c"),
                ]

            def __str__(self):
                return self.one

    with connection.schema_editor() as editor:
        editor.create_model(Odd)
    Odd.objects.using("duck").create(one="b%", two=3)
    change(connection, Odd, "two", models.BigIntegerField(db_column=f"{name}4", null=True))
    with connection.schema_editor() as editor:
        editor.alter_db_table(Odd, f"t_{name}", f"s_{name}")
    Odd._meta.db_table = f"s_{name}"
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, f"s_{name}")
        columns = connection.introspection.get_table_description(cursor, f"s_{name}")
    assert {key: found[key]["columns"] for key in "unc"} == {
        "u": [f"{name}4"],
        "n": [f"{name}4", name],
        "c": [f"{name}4", name],
    }
    assert {each.name: each.collation for each in columns}[name] == "nocase"
    with connection.schema_editor() as editor:
        editor.remove_field(Odd, Odd._meta.get_field("one"))
    run(connection, f"SELECT 1 FROM {connection.ops.quote_name(f's_{name}')}")


@pytest.mark.parametrize(
    ("odd", "refused"),
    [
        (models.DurationField(unique=True), True),
        (models.DurationField(db_index=True), True),
        (models.DurationField(), False),
        (fields.ListField(models.IntegerField(), unique=True), True),
        (fields.StructField({"a": models.IntegerField()}, db_index=True), True),
        (models.BigIntegerField(unique=True), False),
        (models.JSONField(unique=True), False),
    ],
)
def test_check_refuses_the_indexes_that_duckdb_refuses(connection, odd, refused):
    with isolate_apps("tests"):

        class Odd(models.Model):
            value = odd.clone()

            class Meta:
                app_label = "garden"

            def __str__(self):
                return str(self.value)

    found = Odd.check(databases=["duck"])
    assert [each.id for each in found] == (["levada.E065"] if refused else [])
    verdict = pytest.raises(DatabaseError, match="index key") if refused else nullcontext()
    with verdict, connection.schema_editor() as editor:
        editor.create_model(Odd)


@pytest.mark.parametrize("default", [7, datetime.date(2026, 1, 1)], ids=["alter", "anew"])
def test_a_column_is_added_to_100_000_rows_under_indexes(connection, plant, default):
    run(
        connection,
        "INSERT INTO garden_plant (name, height, note) "
        "SELECT 'p' || range, range % 1000, range FROM range(100000)",
    )
    before = rows(connection)
    kind = models.IntegerField if isinstance(default, int) else models.DateField
    indexes = set(constraints(connection))
    with connection.schema_editor() as editor:
        editor.add_field(plant, field(plant, "extra", kind(default=default, db_index=True)))
    assert rows(connection) == [(*row, default) for row in before]
    assert set(constraints(connection)) > indexes
    insert_fails(connection, "('p5', 5, '')")


@isolate_apps("tests")
def test_bulk_create_with_conflicts_does_what_each_row_by_itself_would(connection):
    """DuckDB alone lost moss, whose NULL equals fern's, and oak, for an elm that it dropped."""

    class Herb(models.Model):
        name = models.TextField(unique=True)
        place = models.IntegerField(null=True, unique=True)

        class Meta:
            app_label = "garden"

        def __str__(self):
            return self.name

    with connection.schema_editor() as editor:
        editor.create_model(Herb)
    herbs = Herb.objects.using("duck")
    herbs.create(name="elm", place=1)
    given = [("fern", None), ("moss", None), ("elm", 7), ("oak", 7), ("lily", 7), ("rose", 8)]
    many = [(f"n{number}", None) for number in range(40)]
    herbs.bulk_create([Herb(name=n, place=p) for n, p in given + many], ignore_conflicts=True)
    expected = {("elm", 1), ("fern", None), ("moss", None), ("oak", 7), ("rose", 8), *many}
    assert set(herbs.values_list("name", "place")) == expected
    herbs.bulk_create(
        [Herb(name="a", place=None), Herb(name="b", place=None), Herb(name="c", place=8)],
        update_conflicts=True,
        unique_fields=["place"],
        update_fields=["name"],
    )
    assert set(herbs.values_list("name", "place")) == expected - {("rose", 8)} | {
        ("a", None), ("b", None), ("c", 8),
    }  # fmt: skip


def test_a_comment_of_an_index_survives_a_remake(connection, plant):
    run(connection, "COMMENT ON INDEX plant_note IS 'slow without'")
    change(connection, plant, "height", models.IntegerField(null=True))
    with connection.cursor() as cursor:
        cursor.execute("SELECT comment FROM duckdb_indexes() WHERE index_name = 'plant_note'")
        assert cursor.fetchone() == ("slow without",)


def test_inspectdb_writes_fields_for_the_types_of_other_clients(connection, capsys):
    run(
        connection,
        """CREATE TABLE mixed (
            a INTEGER[], c STRUCT(x INTEGER, "y z" VARCHAR[]) NOT NULL,
            d MAP(VARCHAR, DECIMAL(5,2)), e ENUM('a', 'b''c. d'), f UNION(n INTEGER, s VARCHAR),
            g TIMESTAMP_NS, h UHUGEINT, i VARCHAR COLLATE nocase, j DECIMAL(38,3)
        )""",
    )
    call_command("inspectdb", "mixed", database="duck")
    nested, null = "levada.stores.duckdb.fields", "blank=True, null=True)"
    written = [line.strip() for line in capsys.readouterr().out.splitlines()]
    fields = [line for line in written if re.match("[a-j] = ", line)]
    assert fields == [
        f"a = {nested}.ListField(models.IntegerField(), {null}",
        f"c = {nested}.StructField({{'x': models.IntegerField(), "
        f"'y z': {nested}.ListField(models.TextField())}})",
        f"d = {nested}.MapField(models.TextField(), "
        f"models.DecimalField(max_digits=5, decimal_places=2), {null}",
        "e = models.CharField(max_length=6, "
        f"""choices=[('a', 'a'), ("b'c. d", "b'c. d")], {null}""",
        f"f = models.TextField({null}  # This field type is a guess.",
        f"g = models.DateTimeField({null}",
        f"h = models.PositiveBigIntegerField({null}",
        f"i = models.TextField(db_collation='nocase', {null}",
        f"j = models.DecimalField(max_digits=38, decimal_places=3, {null}",
    ]
    for line in fields:
        eval(line.partition(" = ")[2], {"levada": levada, "models": models})


@pytest.mark.parametrize("atomic", [True, False])
def test_a_change_that_fails_leaves_the_table_as_it_was(connection, plant, atomic):
    before = constraints(connection)
    new = field(plant, "extra", models.IntegerField(unique=True))
    with pytest.raises(IntegrityError), connection.schema_editor(atomic=atomic) as editor:
        editor.add_field(plant, new)
    assert (constraints(connection), len(rows(connection))) == (before, 2)
    assert [
        table for table in connection.introspection.table_names() if "levada_new" in table
    ] == []


def test_an_operation_without_a_migrations_transaction_has_its_own(connection, plant):
    with connection.schema_editor(atomic=False) as editor:
        editor.alter_db_table(plant, "garden_plant", "garden_herb")
        editor.alter_db_table(plant, "garden_herb", "garden_plant")
        editor.remove_field(plant, plant._meta.get_field("height"))
        run(connection, "UPDATE garden_plant SET note = name")
        editor.add_index(plant, Index(fields=["name"], name="by_name"))
    assert "by_name" in constraints(connection)
    assert rows(connection) == [(1, "fern", "fern"), (2, "oak", "oak")]


def test_inspectdb_calls_no_column_unique_that_is_so_under_a_condition(connection, plant, capsys):
    with connection.schema_editor() as editor:
        for number, fields in enumerate((["note"], ["note", "height"])):
            editor.add_constraint(
                plant,
                UniqueConstraint(fields=fields, condition=Q(height=number), name=f"one_{number}"),
            )
    call_command("inspectdb", "garden_plant", database="duck")
    written = capsys.readouterr().out
    assert "note = models.TextField()" in written
    assert "unique_together = (('name', 'height'),)" in written
