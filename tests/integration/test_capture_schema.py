"""Triggers follow the schema: migrations, a DBA's DDL, tables that come and go."""

import datetime as dt
import io
import re

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection, connections, migrations, models, transaction
from django.db.migrations.state import ProjectState
from django.test import override_settings

from levada import capture
from levada.capture import postgresql as postgresql_dialect
from levada.capture import sqlite as sqlite_dialect
from levada.capture.plan import DRIFTED
from levada.conf import replicated
from levada.errors import ConfigurationError, UnsupportedModel, UnsupportedVendor
from levada.models import ReplicatedTable
from tests.shop.models import Customer, Order, OrderLine, Product, Tag

from .captured import capturing, ops

pytestmark = pytest.mark.django_db(transaction=True)
sqlite, postgresql = pytest.mark.sqlite, pytest.mark.postgresql


def replicating(*labels):
    return override_settings(LEVADA={"REPLICATE": {"analytics": {label: {} for label in labels}}})


def execute(sql, params=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


@pytest.fixture
def ddl():
    """Leave schema and triggers as they were: the tests change them for good."""
    executed = []

    def run(sql, undo):
        execute(sql)
        executed.append(undo)

    yield run
    for undo in reversed(executed):
        execute(undo)
    capture.install("default")
    assert capture.stale("default") == []


@pytest.fixture
def statements(monkeypatch):
    """The SQL that ran on the source."""
    seen = []

    def record(run, sql, params, many, context):
        seen.append(sql)
        return run(sql, params, many, context)

    with connection.execute_wrapper(record):
        yield seen


def operate(*operations):
    """Run migration operations of the app `shop` in one schema editor, as one migration does."""
    state = ProjectState.from_apps(apps)
    with connection.schema_editor() as editor:
        for operation in operations:
            after = state.clone()
            operation.state_forwards("shop", after)
            operation.database_forwards("shop", editor, state, after)
            state = after


def create_product(**values):
    def forwards(state_apps, schema_editor):
        state_apps.get_model("shop", "Product").objects.create(price=1, **values)

    return migrations.RunPython(forwards)


def test_installing_twice_runs_no_ddl(statements):
    assert capture.install("default") == []

    assert not [sql for sql in statements if sql.lstrip()[:6].upper() in ("CREATE", "DROP T")]
    assert len(statements) <= 5


def test_install_names_what_it_changed_and_uninstall_takes_all_of_it_away():
    try:
        assert capture.uninstall("default")
        assert ReplicatedTable.objects.count() == 0
        assert "shop.Order" in capture.stale("default")
        with capturing() as changes:
            Product.objects.create(name="free")
        assert changes == []
    finally:
        labels = capture.install("default")

    assert "shop.Order" in labels
    assert "shop.Order_tags" in labels
    assert set(ReplicatedTable.objects.values_list("label", flat=True)) == set(labels)
    assert capture.stale("default") == []


def test_the_registered_spec_is_the_table_as_it_is():
    from levada.tables import TableSpec, table_spec

    row = ReplicatedTable.objects.get(label="shop.Customer")

    assert TableSpec.from_json(row.spec) == table_spec(Customer, ("password",))
    assert row.fingerprint == TableSpec.from_json(row.spec).fingerprint
    assert abs(dt.datetime.now(dt.UTC) - row.installed_at) < dt.timedelta(days=1)


def test_a_change_carries_the_fingerprint_that_is_registered():
    with capturing() as changes:
        Product.objects.create(name="a")

    assert changes[0].fingerprint == ReplicatedTable.objects.get(label="shop.Product").fingerprint


def test_a_model_taken_out_of_the_settings_is_no_longer_captured():
    try:
        with replicating("shop.Product"):
            capture.install("default")
            with capturing() as changes:
                Customer.objects.create(name="Bel")
                Product.objects.create(name="a")
            assert ops(changes) == [("c", "shop.Product")]
            assert ReplicatedTable.objects.count() == 1
    finally:
        capture.install("default")


def test_a_new_exclusion_reaches_the_triggers_and_is_stale_before():
    leave_out = {"REPLICATE": {"analytics": {"shop.Product": {"exclude": ["price"]}}}}
    try:
        with override_settings(LEVADA=leave_out):
            assert capture.stale("default") == ["shop.Product"]
            capture.install("default")
            with capturing() as changes:
                Product.objects.create(name="a", price=99)
        assert changes[0].after.keys() == {"id", "name"}
    finally:
        capture.install("default")


def test_migrate_repairs_a_trigger_that_somebody_dropped():
    if connection.vendor == "sqlite":
        execute("DROP TRIGGER levada_capture_shop_product_insert")
    else:
        execute("DROP TRIGGER levada_insert ON shop_product")
    assert capture.stale("default") == ["shop.Product"]

    call_command("migrate", verbosity=0)

    assert capture.stale("default") == []
    with capturing() as changes:
        Product.objects.create(name="a")
    assert ops(changes) == [("c", "shop.Product")]


@postgresql
def test_a_disabled_trigger_is_stale_and_migrate_makes_it_anew():
    dba("ALTER TABLE shop_product DISABLE TRIGGER levada_insert")
    assert capture.stale("default") == ["shop.Product"]

    call_command("migrate", verbosity=0)

    assert capture.stale("default") == []


def test_flush_leaves_the_triggers_registered():
    call_command("flush", interactive=False, verbosity=0)

    assert capture.stale("default") == []


def test_an_added_column_is_captured_from_its_operation_on():
    """ADD COLUMN leaves triggers as they are: without the watch the column would be missed."""
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    seen = []

    def forwards(state_apps, schema_editor):
        with capturing("shop.Product") as changes:
            state_apps.get_model("shop", "Product").objects.create(name="between")
        seen.extend(changes)

    between = migrations.RunPython(forwards)
    operate(
        migrations.RemoveField("product", "price"),
        between,
        migrations.AddField("product", "price", price),
        between,
    )

    assert [set(change.after) for change in seen] == [{"id", "name"}, {"id", "name", "price"}]
    assert seen[0].fingerprint != seen[1].fingerprint
    registered = ReplicatedTable.objects.get(label="shop.Product").fingerprint
    assert seen[1].fingerprint == registered
    assert capture.stale("default") == []


def test_drop_column_succeeds_under_triggers():
    """On SQLite a trigger that names a column makes its DROP COLUMN fail."""
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    operate(
        migrations.RemoveField("product", "price"), migrations.AddField("product", "price", price)
    )

    with capturing() as changes:
        Product.objects.create(name="a", price=3)
    assert changes[0].after["price"] == 3


def test_a_remade_table_keeps_its_triggers():
    """SQLite alters most columns by copying the table; the old one takes its triggers along."""
    wide, normal = models.CharField(max_length=300), models.CharField(max_length=100)
    with capturing() as changes:
        operate(migrations.AlterField("product", "name", wide), create_product(name="remade"))
        operate(migrations.AlterField("product", "name", normal))

    assert ops(changes) == [("c", "shop.Product")]
    assert capture.stale("default") == []


def test_a_table_renamed_and_back_is_captured_under_its_name():
    operate(
        migrations.AlterModelTable("product", "shop_wares"),
        migrations.AlterModelTable("product", "shop_product"),
    )

    with capturing() as changes:
        Product.objects.create(name="a")
    assert ops(changes) == [("c", "shop.Product")]
    assert capture.stale("default") == []


def test_a_rolled_back_migration_leaves_triggers_that_work():
    def fail(state_apps, schema_editor):
        raise RuntimeError("this migration fails")

    with pytest.raises(RuntimeError):
        operate(migrations.RemoveField("product", "price"), migrations.RunPython(fail))

    with capturing() as changes:
        Product.objects.create(name="a", price=3)
    assert changes[0].after["price"] == 3
    assert capture.stale("default") == []


def test_a_failing_statement_of_ddl_leaves_triggers_that_work():
    with pytest.raises(Exception, match="no_such_column"), transaction.atomic():
        execute("ALTER TABLE shop_product DROP COLUMN no_such_column")

    with capturing() as changes:
        Product.objects.create(name="a")
    assert ops(changes) == [("c", "shop.Product")]


def test_raw_ddl_through_django_refreshes_the_triggers(ddl):
    ddl(
        "ALTER TABLE shop_product RENAME COLUMN price TO cost",
        "ALTER TABLE shop_product RENAME COLUMN cost TO price",
    )

    with capturing() as changes:
        execute("INSERT INTO shop_product (name, cost) VALUES ('a', 1)")

    assert changes[0].after.keys() == {"id", "name"}
    assert capture.stale("default") == ["shop.Product"]


def dba(*statements):
    """Run statements as a DBA would: not through Django."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        import sqlite3

        client = sqlite3.connect(settings["NAME"])
    else:
        import psycopg

        client = psycopg.connect(
            host=settings["HOST"],
            port=settings["PORT"],
            user=settings["USER"],
            dbname=settings["NAME"],
        )
    for statement in statements:
        client.execute(statement)
    client.commit()
    client.close()


DBA_DDL = [
    ("ADD COLUMN shelf integer", "DROP COLUMN shelf", False),
    ("RENAME COLUMN price TO cost", "RENAME COLUMN cost TO price", True),
    ("DROP COLUMN price", "ADD COLUMN price numeric(10, 2) NOT NULL DEFAULT 0", True),
    ("RENAME COLUMN id TO wares_id", "RENAME COLUMN wares_id TO id", True),
    (
        "ALTER COLUMN price TYPE text",
        "ALTER COLUMN price TYPE numeric(10, 2) USING price::numeric",
        False,
    ),
]


@postgresql
@pytest.mark.parametrize(("change", "undo", "drifts"), DBA_DDL, ids=lambda each: str(each)[:30])
def test_ddl_of_a_dba_breaks_no_write(ddl, change, undo, drifts):
    """The function's plan is made again after DDL; a column it cannot find must not fail it."""
    Product.objects.create(name="warm", price=1)  # this session has planned the function
    dba(f"ALTER TABLE shop_product {change}")
    try:
        with capturing() as changes:
            execute(an_insert())
            execute("UPDATE shop_product SET name = name || '!'")
            execute("DELETE FROM shop_product")
    finally:
        dba("TRUNCATE shop_product CASCADE", f"ALTER TABLE shop_product {undo}")

    assert {change.op for change in changes} >= {"c", "d"}
    assert {change.fingerprint == DRIFTED for change in changes} == {drifts}
    capture.install("default")


def an_insert():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'shop_product'::regclass "
            "AND attnum > 0 AND NOT attisdropped AND attname IN ('price', 'cost')"
        )
        row = cursor.fetchone()
    return (
        f"INSERT INTO shop_product (name, {row[0]}) VALUES ('a', 1), ('b', 2)"
        if row
        else "INSERT INTO shop_product (name) VALUES ('a'), ('b')"
    )


@postgresql
@pytest.mark.parametrize("column", ["span", "blob", "data", "moment"])
def test_a_column_of_a_special_type_may_become_text(column):
    """Casts that only their own type knows must not fail once a DBA has changed the type."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = 'shop_everything'::regclass AND attname = %s",
            [column],
        )
        before = cursor.fetchone()[0]
    execute("INSERT INTO shop_everything (small) VALUES (1)")
    dba(f"ALTER TABLE shop_everything ALTER COLUMN {column} TYPE text")
    try:
        with capturing() as changes:
            execute(f"INSERT INTO shop_everything ({column}) VALUES ('anything')")
            execute("UPDATE shop_everything SET small = 2")
    finally:
        dba(
            "TRUNCATE shop_everything",
            f"ALTER TABLE shop_everything ALTER COLUMN {column} TYPE {before} "
            f"USING {column}::{before}",
        )
    assert changes[0].after[column] == "anything"


@sqlite
def test_a_dba_may_add_and_rename_columns():
    dba("ALTER TABLE shop_product ADD COLUMN shelf integer")
    dba("ALTER TABLE shop_product RENAME COLUMN price TO cost")
    try:
        with capturing() as changes:
            dba("INSERT INTO shop_product (name, cost) VALUES ('a', 1)")
    finally:
        dba("ALTER TABLE shop_product RENAME COLUMN cost TO price")
        execute("ALTER TABLE shop_product DROP COLUMN shelf")

    assert changes[0].after == {"id": changes[0].key[0], "name": "a", "price": 1}
    assert capture.stale("default") == []


@postgresql
def test_columns_may_be_called_like_the_names_the_function_uses(ddl):
    """row_to_json(n) took a column called n for the row."""
    names = ("n", "o", "t", "op", "key", "before", "after", "nested", "levada_new", "drifted")
    columns = ", ".join(f'"{name}" integer DEFAULT 1' for name in names)
    ddl(
        f"CREATE TABLE shop_names (id integer PRIMARY KEY, {columns})",
        "DROP TABLE shop_names CASCADE",
    )
    from levada.capture import postgresql as dialect
    from levada.tables import ColumnSpec, TableSpec

    spec = TableSpec(
        "shop.Names",
        "shop_names",
        ("id",),
        tuple(ColumnSpec(name, "integer", "IntegerField") for name in ("id", *names)),
    )
    with connection.cursor() as cursor:
        tables = dialect.tables(cursor, ["shop_names", "levada_outbox"])
        wanted = dialect.wanted(spec, tables["shop_names"], tables["levada_outbox"])
        for sql in wanted.create.values():
            cursor.execute(sql)
    with capturing() as changes:
        execute("INSERT INTO shop_names (id) VALUES (1)")
        execute("UPDATE shop_names SET n = 2")
        execute("UPDATE shop_names SET id = 2")
        execute("DELETE FROM shop_names")
    assert sorted(change.op for change in changes) == ["c", "c", "d", "d", "u"]
    assert changes[1].after == {"id": 1, **dict.fromkeys(names, 1), "n": 2}
    assert {change.fingerprint for change in changes} == {spec.fingerprint}


@postgresql
def test_a_role_without_rights_on_the_outbox_can_write(ddl):
    ddl("CREATE ROLE levada_clerk", "DROP ROLE levada_clerk")
    ddl(
        "GRANT INSERT, UPDATE, SELECT, DELETE ON shop_product TO levada_clerk",
        "DROP OWNED BY levada_clerk",
    )
    execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO levada_clerk")
    with capturing() as changes, transaction.atomic():
        execute("SET LOCAL ROLE levada_clerk")
        execute("INSERT INTO shop_product (name, price) VALUES ('a', 1)")
        execute("UPDATE shop_product SET price = 2")
        execute("DELETE FROM shop_product")
        execute("RESET ROLE")
    assert [change.op for change in changes] == ["c", "u", "d"]


@postgresql
def test_a_temporary_table_cannot_take_the_place_of_the_outbox():
    with capturing() as changes, transaction.atomic():
        execute("CREATE TEMP TABLE levada_outbox (id bigint) ON COMMIT DROP")
        execute("INSERT INTO shop_product (name, price) VALUES ('a', 1)")
        execute("DROP TABLE pg_temp.levada_outbox")
    assert ops(changes) == [("c", "shop.Product")]


@postgresql
def test_partitions_are_captured_whichever_table_a_statement_names(ddl):
    ddl(
        "CREATE TABLE shop_parts (id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id)",
        "DROP TABLE shop_parts CASCADE",
    )
    execute("CREATE TABLE shop_parts_1 PARTITION OF shop_parts FOR VALUES FROM (0) TO (100)")
    execute("CREATE TABLE shop_parts_2 PARTITION OF shop_parts FOR VALUES FROM (100) TO (200)")
    from levada.capture import postgresql as dialect
    from levada.tables import ColumnSpec, TableSpec

    columns = (ColumnSpec("id", "integer", "BigAutoField"), ColumnSpec("name", "text", "TextField"))
    spec = TableSpec("shop.Parts", "shop_parts", ("id",), columns)
    with connection.cursor() as cursor:
        tables = dialect.tables(cursor, ["shop_parts", "levada_outbox"])
        wanted = dialect.wanted(spec, tables["shop_parts"], tables["levada_outbox"])
        for sql in wanted.create.values():
            cursor.execute(sql)
    with capturing() as changes:
        execute("INSERT INTO shop_parts VALUES (1, 'a'), (101, 'b')")
        execute("UPDATE shop_parts_1 SET name = 'direct'")
        execute("UPDATE shop_parts SET id = 102 WHERE id = 1")
        execute("DELETE FROM shop_parts_2 WHERE id = 101")
        execute("TRUNCATE shop_parts_2")
        execute("TRUNCATE shop_parts")
    assert [(change.op, change.key) for change in changes[:3]] == [
        ("c", [1]),
        ("c", [101]),
        ("u", [1]),
    ]
    assert sorted((change.op, change.key) for change in changes[3:5]) == [("c", [102]), ("d", [1])]
    assert (changes[5].op, changes[5].key) == ("d", [101])
    assert changes[6].op == "t"
    assert changes[6].fingerprint == DRIFTED  # a part alone is not the table
    assert spec.fingerprint in {change.fingerprint for change in changes[7:]}


@postgresql
def test_an_update_of_many_rows_by_a_cached_plan_stays_linear():
    """A cached nested loop over both transition tables took 113 s for 20,000 rows."""
    Product.objects.bulk_create([Product(name="p") for _ in range(20_000)])
    Product.objects.filter(pk=Product.objects.first().pk).update(price=1)
    execute("SET plan_cache_mode = force_generic_plan")
    execute("SET statement_timeout = '60s'")
    try:
        with capturing() as changes:
            for price in (2, 3):
                Product.objects.update(price=price)
    finally:
        connection.close()
    assert len(changes) == 40_000


@postgresql
def test_database_cascades_are_captured(ddl):
    """What the database deletes by itself sends no signal in Django."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint "
            "WHERE conrelid = 'shop_orderline'::regclass AND contype = 'f'"
        )
        name = cursor.fetchone()[0]
    foreign_key = f'ADD CONSTRAINT "{name}" FOREIGN KEY (order_id) REFERENCES shop_order (id)'
    ddl(f'ALTER TABLE shop_orderline DROP CONSTRAINT "{name}"', "SELECT 1")
    ddl(
        f"ALTER TABLE shop_orderline {foreign_key} ON DELETE CASCADE",
        f'ALTER TABLE shop_orderline DROP CONSTRAINT "{name}"; '
        f"ALTER TABLE shop_orderline {foreign_key} DEFERRABLE INITIALLY DEFERRED",
    )
    order = Order.objects.create(customer=Customer.objects.create(name="Bel"))
    OrderLine.objects.create(order=order, sku="a")
    with capturing() as changes:
        execute("DELETE FROM shop_order")
    assert sorted(ops(changes)) == [("d", "shop.Order"), ("d", "shop.OrderLine")]


@sqlite
def test_database_cascades_are_captured_on_sqlite(ddl):
    ddl(
        "CREATE TABLE shop_kid (id integer PRIMARY KEY, "
        "product_id integer REFERENCES shop_product (id) ON DELETE CASCADE)",
        "DROP TABLE shop_kid",
    )
    from levada.capture import sqlite as dialect
    from levada.capture.plan import Table
    from levada.tables import ColumnSpec, TableSpec

    columns = tuple(ColumnSpec(name, "integer", "IntegerField") for name in ("id", "product_id"))
    spec = TableSpec("shop.Kid", "shop_kid", ("id",), columns)
    for sql in dialect.wanted(spec, Table("shop_kid", {}), None).create.values():
        execute(sql)
    product = Product.objects.create(name="a")
    execute("INSERT INTO shop_kid VALUES (1, %s)", [product.pk])
    with capturing() as changes:
        execute("DELETE FROM shop_product")
    assert sorted(ops(changes)) == [("d", "shop.Kid"), ("d", "shop.Product")]


USER_TRIGGERS = {
    "sqlite": (
        "CREATE TRIGGER a_touch AFTER INSERT ON shop_product BEGIN "
        "UPDATE shop_product SET price = 77 WHERE id = NEW.id; END",
        "DROP TRIGGER a_touch",
    ),
    "postgresql": (
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE shop_product SET price = 77 WHERE id = NEW.id; RETURN NULL; END $$; "
        "CREATE TRIGGER a_touch AFTER INSERT ON shop_product "
        "FOR EACH ROW EXECUTE FUNCTION touch()",
        "DROP FUNCTION touch() CASCADE",
    ),
}


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_projects_own_trigger_that_changes_the_row_again_is_not_undone(ddl, first):
    """The outer change is captured after the inner one and would carry the older row."""
    if first == "theirs" and connection.vendor == "sqlite":
        capture.uninstall("default")
    ddl(*USER_TRIGGERS[connection.vendor])
    capture.install("default")
    with capturing("shop.Product") as changes:
        Product.objects.create(name="a", price=1)
        Product.objects.create(name="b", price=2)
    assert [row.price for row in Product.objects.all()] == [77, 77]
    last = {change.key[0]: change.after["price"] for change in changes}
    assert set(last.values()) == {77}
    assert len(last) == 2


PUT_BACK = {
    "sqlite": (
        "CREATE TRIGGER z_keep AFTER DELETE ON shop_product BEGIN "
        "INSERT INTO shop_product (id, name, price) VALUES (OLD.id, OLD.name, -1); END",
        "DROP TRIGGER z_keep",
    ),
    "postgresql": (
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO shop_product (id, name, price) VALUES (OLD.id, OLD.name, -1); "
        "RETURN NULL; END $$; CREATE TRIGGER a_keep AFTER DELETE ON shop_product "
        "FOR EACH ROW EXECUTE FUNCTION keep()",
        "DROP FUNCTION keep() CASCADE",
    ),
}


def test_a_row_that_a_trigger_puts_back_is_not_gone(ddl):
    product = Product.objects.create(name="a", price=1)
    ddl(*PUT_BACK[connection.vendor])
    with capturing("shop.Product") as changes:
        execute("DELETE FROM shop_product")
    assert Product.objects.get().price == -1
    assert (changes[-1].key, changes[-1].after["price"]) == ([product.pk], -1)


@sqlite
def test_triggers_of_a_project_go_on_not_recursing():
    """With recursive triggers such a touch would call itself until SQLite gives up."""
    execute(
        "CREATE TRIGGER a_touch AFTER UPDATE ON shop_product BEGIN "
        "UPDATE shop_product SET price = price + 1 WHERE id = NEW.id; END"
    )
    try:
        connection.close()
        Product.objects.create(name="a", price=1)
        Product.objects.update(name="b")
        assert Product.objects.get().price == 2
    finally:
        execute("DROP TRIGGER a_touch")
        connection.close()


@sqlite
def test_a_case_change_in_a_nocase_column_is_a_change(ddl):
    ddl(
        "ALTER TABLE shop_product RENAME COLUMN name TO old_name",
        "ALTER TABLE shop_product RENAME COLUMN old_name TO name",
    )
    ddl(
        "ALTER TABLE shop_product ADD COLUMN name text COLLATE NOCASE DEFAULT 'x'",
        "ALTER TABLE shop_product DROP COLUMN name",
    )
    execute("INSERT INTO shop_product (old_name, name, price) VALUES ('', 'abc', 1)")
    with capturing() as changes:
        execute("UPDATE shop_product SET name = 'ABC'")
    assert [change.after["name"] for change in changes] == ["ABC"]


def test_a_view_is_refused_by_name(ddl):
    ddl("CREATE VIEW shop_view AS SELECT id, name FROM shop_tag", "DROP VIEW shop_view")
    Tag._meta.db_table = "shop_view"
    try:
        with (
            replicating("shop.Tag"),
            pytest.raises(UnsupportedModel, match=r"shop\.Tag is the view shop_view"),
        ):
            capture.install("default")
    finally:
        Tag._meta.db_table = "shop_tag"


def test_a_database_without_our_triggers_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(connections["default"], "vendor", "oracle")
    with pytest.raises(UnsupportedVendor, match=r"oracle.*Use SQLite or PostgreSQL"):
        capture.install("default")


def test_the_sql_for_a_dba_names_every_table_and_its_way_out():
    text = capture.trigger_sql("default")
    assert "-- shop.Customer: table shop_customer, columns id, name, email, country" in text
    assert "never password" in text
    assert "levada uninstall" in text
    assert '"password"' not in text
    assert text.count("CREATE") >= 8


@sqlite
def test_a_connection_that_trusts_no_schema_is_refused_by_name(monkeypatch):
    """SQLite 3.40 counts the JSON functions among those an untrusted trigger may not call."""
    options = connections["default"].settings_dict["OPTIONS"]
    monkeypatch.setitem(
        options, "init_command", options.get("init_command", "") + "PRAGMA trusted_schema = OFF;"
    )
    connection.close()
    try:
        with pytest.raises(ConfigurationError, match=r"trusted_schema = OFF.*Remove it"):
            capture.install("default")
    finally:
        monkeypatch.undo()
        connection.close()


def test_the_printed_sql_is_what_migrate_installs():
    """A DBA reads it, and may run it as it stands: every trigger, and nothing else, is made."""
    out = io.StringIO()
    call_command("levada", "triggers", "--sql", stdout=out)
    installed = installed_capture()
    tables = {each.spec.table for each in replicated().values()}
    assert len(tables) >= 8
    for table in tables:
        for event in ("insert", "update", "delete"):
            assert re.search(trigger_line(table, event), out.getvalue()), (table, event)
    for column in replicated()["shop.Everything"].spec.columns:
        assert re.search(rf"(?m)^ +'{column.name}', ", out.getvalue()), "each on a line of its own"

    capture.uninstall("default")
    try:
        assert installed_capture() == {}
        if connection.vendor == "sqlite":
            connection.connection.executescript(out.getvalue())
        else:
            execute(out.getvalue())
        assert installed_capture() == installed
    finally:
        capture.install("default")


def trigger_line(table, event):
    if connection.vendor == "sqlite":
        return rf'(?m)^CREATE TRIGGER "levada_capture_{table}_{event}" AFTER {event.upper()} ON '
    timing = f'AFTER {event.upper()} ON "public"."{table}"'
    return rf"(?m)^CREATE OR REPLACE TRIGGER levada_{event} {timing} "


def installed_capture():
    """Return what the database has of capture: name to definition, by table."""
    vendor = {"sqlite": sqlite_dialect, "postgresql": postgresql_dialect}[connection.vendor]
    with connection.cursor() as cursor:
        return {name: found.pieces for name, found in vendor.found(cursor).items()}


@sqlite
def test_local_times_in_an_sqlite_source_are_refused_by_name(monkeypatch):
    """Django writes them without an offset, and no trigger knows when clocks are changed."""
    monkeypatch.setitem(connections["default"].settings_dict, "TIME_ZONE", "Europe/Lisbon")
    forget_zone()
    try:
        assert connection.timezone_name == "Europe/Lisbon"
        with pytest.raises(ConfigurationError, match=r"'Europe/Lisbon', so shop\.\w+ keeps local"):
            capture.install("default")
        with replicating("shop.Seat", "shop.OrderLine"):
            capture.install("default")  # a model without datetimes does not mind
    finally:
        monkeypatch.undo()
        forget_zone()
        capture.install("default")


def forget_zone():
    for name in ("timezone", "timezone_name"):
        vars(connections["default"]).pop(name, None)
