"""Every kind of write a project makes is captured, whole and once; what rolls back is not."""

import io
import json
import re
import sqlite3

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection, migrations, models, transaction
from django.db.migrations.state import ProjectState
from django.db.models import F

from levada import capture
from tests.shop.models import Book, Customer, Order, OrderLine, Product, Seat, Tag

from .captured import capturing, ops

pytestmark = pytest.mark.django_db(transaction=True)


def bel(name="Bel"):
    return Customer.objects.create(name=name, country="PT")


def three_products():
    return Product.objects.bulk_create([Product(name=f"p{n}", price=n) for n in (1, 2, 3)])


def an_order():
    order = Order.objects.create(customer=bel(), total=5)
    OrderLine.objects.bulk_create([OrderLine(order=order, sku=f"s{n}") for n in (1, 2)])
    order.tags.set([Tag.objects.create(name="gift"), Tag.objects.create(name="fast")])
    return order


def raw(sql, *args, many=False):
    with connection.cursor() as cursor:
        (cursor.executemany if many else cursor.execute)(sql, *args)


def save_insert(_):
    Product(name="new").save()


def save_update(products):
    products[0].name = "other"
    products[0].save()


def save_update_fields(products):
    products[0].name = "other"
    products[0].save(update_fields=["name"])


def get_or_create(_):
    Product.objects.get_or_create(name="fresh")


def update_or_create_updates(_):
    Product.objects.update_or_create(name="p1", defaults={"price": 9})


def update_or_create_creates(_):
    Product.objects.update_or_create(name="p9", defaults={"price": 9})


def bulk_create(_):
    Product.objects.bulk_create([Product(name="a"), Product(name="b")])


def bulk_create_ignoring(products):
    Product.objects.bulk_create(
        [Product(pk=products[0].pk, name="clash"), Product(name="b")], ignore_conflicts=True
    )


def bulk_create_updating(products):
    Product.objects.bulk_create(
        [Product(pk=products[0].pk, name="won"), Product(pk=1_000, name="b")],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["name"],
    )


def bulk_update(products):
    for product in products:
        product.price += 1
    Product.objects.bulk_update(products, ["price"])


def queryset_update(_):
    Product.objects.filter(price__gte=2).update(price=7)


def queryset_update_by_expression(_):
    Product.objects.update(price=F("price") * 2)


def queryset_update_of_sliced_subquery(_):
    Product.objects.filter(pk__in=Product.objects.order_by("pk").values("pk")[:2]).update(price=8)


def queryset_delete(_):
    Product.objects.filter(price__lt=3).delete()


def instance_delete(products):
    products[0].delete()


def raw_insert(_):
    raw("INSERT INTO shop_product (name, price) VALUES (%s, 1)", ["raw"])


def raw_update(_):
    raw("UPDATE shop_product SET price = price + 1")


def raw_delete(_):
    raw("DELETE FROM shop_product")


def raw_executemany(_):
    raw("INSERT INTO shop_product (name, price) VALUES (%s, 1)", [["a"], ["b"]], many=True)


def raw_upsert(products):
    raw(
        "INSERT INTO shop_product (id, name, price) VALUES (%s, 'raw', 1) "
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        [products[0].pk],
    )


def insert_from_select(_):
    raw("INSERT INTO shop_product (name, price) SELECT name || '!', price FROM shop_product")


def update_of_the_primary_key(products):
    Product.objects.filter(pk=products[0].pk).update(id=1_000)


def run_python(_):
    def forwards(state_apps, schema_editor):
        state_apps.get_model("shop", "Product").objects.create(name="migrated", price=1)

    operation = migrations.RunPython(forwards)
    with connection.schema_editor() as editor:
        state = ProjectState.from_apps(apps)
        operation.database_forwards("shop", editor, state, state)


def loaddata(tmp_path):
    path = tmp_path / "products.json"
    path.write_text(
        json.dumps([{"model": "shop.product", "pk": 77, "fields": {"name": "f", "price": "1"}}])
    )
    call_command("loaddata", str(path), verbosity=0)


def foreign_client(_):
    """Write as a program that never heard of Django or Levada."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        client = sqlite3.connect(settings["NAME"])
    else:
        import psycopg

        client = psycopg.connect(
            host=settings["HOST"],
            port=settings["PORT"],
            user=settings["USER"],
            password=settings["PASSWORD"],
            dbname=settings["NAME"],
        )
    client.execute("INSERT INTO shop_product (name, price) VALUES ('foreign', 1)")
    client.execute("UPDATE shop_product SET price = 2 WHERE name = 'foreign'")
    client.commit()
    client.close()


WRITES = [
    (save_insert, "c"),
    (save_update, "u"),
    (save_update_fields, "u"),
    (get_or_create, "c"),
    (update_or_create_updates, "u"),
    (update_or_create_creates, "c"),
    (bulk_create, "cc"),
    (bulk_create_ignoring, "c"),
    (bulk_create_updating, "cu"),
    (bulk_update, "uuu"),
    (queryset_update, "uu"),
    (queryset_update_by_expression, "uuu"),
    (queryset_update_of_sliced_subquery, "uu"),
    (queryset_delete, "dd"),
    (instance_delete, "d"),
    (raw_insert, "c"),
    (raw_update, "uuu"),
    (raw_delete, "ddd"),
    (raw_executemany, "cc"),
    (raw_upsert, "u"),
    (insert_from_select, "ccc"),
    (update_of_the_primary_key, "cd"),
    (run_python, "c"),
    (foreign_client, "cu"),
]


def table_now():
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, name, price FROM shop_product")
        return {key: (name, float(price)) for key, name, price in cursor.fetchall()}


def replayed(before, changes):
    """Apply `changes` to the rows `before`, last change of a key wins."""
    rows = dict(before)
    for change in changes:
        rows.pop(change.key[0], None)
        if change.after is not None:
            rows[change.key[0]] = (change.after["name"], float(change.after["price"]))
    return rows


@pytest.mark.parametrize(
    ("write", "expected"), WRITES, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_write_is_captured(write, expected):
    three_products()
    products = list(Product.objects.order_by("pk"))
    before = table_now()

    with capturing("shop.Product") as changes:
        write(products)

    assert "".join(sorted(change.op for change in changes)) == expected
    assert table_now() != before
    assert replayed(before, changes) == table_now()
    assert {key for key in before if key not in table_now()} == {
        change.key[0] for change in changes if change.op == "d"
    }
    for change in changes:
        if change.before is not None:
            assert (change.before["name"], float(change.before["price"])) == before.get(
                change.key[0], ("foreign", 1.0)
            )


def test_loaddata_is_captured(tmp_path):
    with capturing() as changes:
        loaddata(tmp_path)

    assert ops(changes) == [("c", "shop.Product")]
    assert changes[0].after["id"] == 77


def test_a_delete_captures_what_it_cascades_to():
    order = an_order()

    with capturing() as changes:
        order.customer.delete()

    assert sorted(ops(changes)) == [
        ("d", "shop.Customer"),
        ("d", "shop.Order"),
        ("d", "shop.OrderLine"),
        ("d", "shop.OrderLine"),
        ("d", "shop.Order_tags"),
        ("d", "shop.Order_tags"),
    ]


def test_a_fast_delete_of_children_is_captured():
    order = an_order()

    with capturing() as changes:
        order.lines.all().delete()

    assert ops(changes) == [("d", "shop.OrderLine")] * 2


def test_an_update_filtered_by_a_join_is_captured():
    order = an_order()
    with capturing() as changes:
        OrderLine.objects.filter(order__customer__name="Bel", order=order).update(quantity=9)

    assert ops(changes) == [("u", "shop.OrderLine")] * 2
    assert {change.after["quantity"] for change in changes} == {9}


def test_a_delete_that_moves_what_pointed_to_the_row_is_captured(monkeypatch):
    """SET_NULL, SET_DEFAULT and SET() write an UPDATE of the rows that stay."""
    order, heir = an_order(), bel("heir")
    reference = Order._meta.get_field("customer").remote_field
    monkeypatch.setattr(reference, "on_delete", models.SET(heir.pk))

    with capturing() as changes:
        order.customer.delete()

    assert ops(changes) == [("u", "shop.Order"), ("d", "shop.Customer")]
    assert changes[0].after["customer_id"] == heir.pk


@pytest.fixture
def lines_of():
    """Have the database itself do something to an order's lines when the order goes."""
    before = []

    def make(action, column):
        statements = _foreign_key(f"ON DELETE {action}", column)
        before.extend(_foreign_key("", "NOT NULL"))
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    yield make
    OrderLine.objects.all().delete()
    with connection.cursor() as cursor:
        for statement in before:
            cursor.execute(statement)
    assert capture.stale("default") == []


def _foreign_key(action, column):
    """Return what gives the empty table of order lines such a foreign key."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(
                "SELECT sql FROM sqlite_master WHERE tbl_name = 'shop_orderline' "
                "AND type IN ('table', 'index') AND sql IS NOT NULL ORDER BY type DESC"
            )
            table, *indexes = (sql for (sql,) in cursor.fetchall())
            key = rf'"order_id" bigint {column} REFERENCES "shop_order" ("id") {action} DEFERRABLE'
            table, found = re.subn(r'"order_id" bigint .*? DEFERRABLE', key, table)
            assert found == 1
            return ["DROP TABLE shop_orderline", table, *indexes]
        cursor.execute(
            "SELECT conname FROM pg_constraint "
            "WHERE conrelid = 'shop_orderline'::regclass AND contype = 'f'"
        )
        ((name,),) = cursor.fetchall()
    null = "SET NOT NULL" if "NOT NULL" in column else "DROP NOT NULL"
    default = re.search(r"DEFAULT \d+", column)
    alter = "ALTER TABLE shop_orderline"
    return [
        f"{alter} ALTER COLUMN order_id {null}",
        f"{alter} ALTER COLUMN order_id {f'SET {default[0]}' if default else 'DROP DEFAULT'}",
        f"{alter} DROP CONSTRAINT {name}",
        f"{alter} ADD CONSTRAINT {name} FOREIGN KEY (order_id) REFERENCES shop_order (id) "
        f"{action} DEFERRABLE INITIALLY DEFERRED",
    ]


@pytest.mark.parametrize(
    ("action", "column", "op"),
    [
        ("CASCADE", "NOT NULL", "d"),
        ("SET NULL", "", "u"),
        ("SET DEFAULT", "DEFAULT 4242", "u"),
    ],
)
def test_what_the_database_does_on_delete_is_captured(lines_of, monkeypatch, action, column, op):
    """Django 6.1's DB_CASCADE, DB_SET_NULL and DB_SET_DEFAULT leave it to the database."""
    name = f"DB_{action.replace(' ', '_')}"
    reference = OrderLine._meta.get_field("order").remote_field
    monkeypatch.setattr(reference, "on_delete", getattr(models, name, models.DO_NOTHING))
    heir = Order.objects.create(pk=4242, customer=bel("heir"))
    lines_of(action, column)
    kept, gone = (Order.objects.create(customer=bel()) for _ in range(2))
    for order in (kept, gone, gone):
        OrderLine.objects.create(order=order, sku="a")

    number = gone.pk

    with capturing() as changes:
        gone.delete()

    assert sorted(ops(changes)) == [("d", "shop.Order"), *[(op, "shop.OrderLine")] * 2]
    lines = [change for change in changes if change.label == "shop.OrderLine"]
    assert {change.before["order_id"] for change in lines} == {number}
    if op == "u":
        moved_to = heir.pk if action == "SET DEFAULT" else None
        assert {change.after["order_id"] for change in lines} == {moved_to}

    # The next statement at the top level is captured as ever.
    with capturing() as changes:
        OrderLine.objects.filter(order=kept).update(sku="b")
    assert ops(changes) == [("u", "shop.OrderLine")]


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda order: order.tags.add(Tag.objects.create(name="new")), "c"),
        (lambda order: order.tags.remove(Tag.objects.get(name="gift")), "d"),
        (lambda order: order.tags.set([Tag.objects.create(name="new")]), "cdd"),
        (lambda order: order.tags.clear(), "dd"),
        (lambda order: Tag.objects.get(name="gift").order_set.add(order, order), ""),
        (lambda order: Tag.objects.get(name="gift").order_set.clear(), "d"),
    ],
    ids=["add", "remove", "set", "clear", "add_what_is_there", "clear_backwards"],
)
def test_a_many_to_many_write_is_captured(act, expected):
    order = an_order()

    with capturing("shop.Order_tags") as changes:
        act(order)

    assert "".join(sorted(change.op for change in changes)) == expected
    for change in changes:
        assert set(change.after or change.before) == {"id", "order_id", "tag_id"}


def test_multi_table_inheritance_captures_parent_and_child():
    with capturing() as changes:
        book = Book.objects.create(name="Os Maias", isbn="1", pages=700)
    assert ops(changes) == [("c", "shop.Product"), ("c", "shop.Book")]
    assert changes[1].key == [book.pk]

    with capturing() as changes:
        book.pages, book.price = 701, 12
        book.save()
    assert sorted(ops(changes)) == [("u", "shop.Book"), ("u", "shop.Product")]

    with capturing() as changes:
        Book.objects.update(pages=1, price=2)
    assert sorted(ops(changes)) == [("u", "shop.Book"), ("u", "shop.Product")]

    with capturing() as changes:
        Product.objects.get().delete()
    assert ops(changes) == [("d", "shop.Book"), ("d", "shop.Product")]


def test_a_composite_key_is_captured_in_column_order():
    seat = Seat.objects.create(row="A", number=7)
    with capturing() as changes:
        Seat.objects.filter(pk=seat.pk).update(taken=True)
        Seat.objects.filter(pk=seat.pk).update(number=8)
        Seat.objects.all().delete()

    assert [(change.op, change.key) for change in changes][:1] == [("u", ["A", 7])]
    assert sorted((change.op, change.key) for change in changes[1:3]) == [
        ("c", ["A", 8]),
        ("d", ["A", 7]),
    ]
    assert changes[3].op == "d"


def test_an_admin_action_is_captured(client, django_user_model):
    products = three_products()
    root = django_user_model.objects.create_superuser("root", password="x")
    client.force_login(root)
    with capturing("shop.Product") as changes:
        response = client.post(
            "/admin/shop/product/",
            {
                "action": "delete_selected",
                "_selected_action": [products[0].pk, products[1].pk],
                "post": "yes",
            },
        )

    assert response.status_code == 302
    assert [change.op for change in changes] == ["d", "d"]


@pytest.mark.postgresql
def test_truncate_is_captured_as_one_change():
    an_order()

    with capturing() as changes:
        raw("TRUNCATE shop_order CASCADE")

    assert sorted(ops(changes)) == [
        ("t", "shop.Order"),
        ("t", "shop.OrderLine"),
        ("t", "shop.Order_tags"),
    ]
    assert {(change.key, change.before, change.after) for change in changes} == {(None, None, None)}


@pytest.mark.postgresql
def test_copy_from_is_captured():
    with capturing() as changes, connection.cursor() as cursor:
        copying = "COPY shop_product (name, price) FROM STDIN"
        with cursor.copy(copying) as copy:
            copy.write_row(("a", 1))
            copy.write_row(("b", 2))

    assert [change.after["name"] for change in changes] == ["a", "b"]


def test_a_rolled_back_transaction_leaves_nothing():
    with capturing() as changes, transaction.atomic():
        three_products()
        transaction.set_rollback(True)

    assert Product.objects.count() == 0
    assert changes == []


def test_a_rolled_back_savepoint_leaves_only_what_stayed():
    with capturing() as changes, transaction.atomic():
        Product.objects.create(name="stays")
        with transaction.atomic():
            Product.objects.create(name="goes")
            transaction.set_rollback(True)
        Product.objects.create(name="stays, too")

    assert [change.after["name"] for change in changes] == ["stays", "stays, too"]


def test_an_update_that_changes_nothing_is_no_change():
    product = three_products()[0]
    with capturing() as changes:
        Product.objects.get(pk=product.pk).save()
        Product.objects.update(name=F("name"))

    assert changes == []


def test_an_excluded_field_never_leaves_its_table():
    with capturing() as changes:
        customer = Customer.objects.create(name="Bel", password="s3cret")
        Customer.objects.update(password="0ther")
        Customer.objects.update(name="Mel")
        customer.delete()

    assert [change.op for change in changes] == ["c", "u", "d"]
    from levada.models import Outbox

    everything = io.StringIO()
    call_command("dumpdata", "levada", stdout=everything)
    assert "s3cret" not in everything.getvalue()
    assert "0ther" not in everything.getvalue()
    assert Outbox.objects.count() == 3


def test_a_table_outside_the_settings_is_not_captured():
    with capturing() as changes:
        Tag.objects.create(name="not replicated")

    assert changes == []


def test_statements_of_one_transaction_share_its_number():
    with capturing() as changes:
        with transaction.atomic():
            three_products()
            Product.objects.update(price=9)
        Product.objects.create(name="alone")
        Product.objects.create(name="alone, too")

    numbers = [change.transaction for change in changes]
    assert None not in numbers
    assert len(set(numbers[:6])) == 1
    assert len(set(numbers)) == 3
    assert numbers == sorted(numbers)


@pytest.mark.sqlite
def test_a_client_outside_django_leaves_the_transaction_number_empty():
    with capturing() as changes:
        foreign_client(None)

    assert [change.transaction for change in changes] == [None, None]


@pytest.mark.sqlite
def test_the_implicit_delete_of_insert_or_replace_is_captured_on_a_django_connection():
    raw("CREATE UNIQUE INDEX one_name ON shop_product (name)")
    try:
        product = three_products()[0]
        with capturing() as changes:
            raw("INSERT OR REPLACE INTO shop_product (id, name, price) VALUES (900, 'p1', 4)")
    finally:
        raw("DROP INDEX one_name")

    assert [(change.op, change.key) for change in changes] == [("d", [product.pk]), ("c", [900])]
