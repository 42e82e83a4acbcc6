"""
A process that writes to a lake and reads it: `python -m tests.integration.lake_child`.

Its arguments: the lake's name, address of the catalogue, data folder, what to do, how often.
"""

import json
import os
import sys
import time


def write(times):
    """Write `times` orders of ten lines that sum to zero, each in one transaction."""
    from django.db import transaction

    from tests.shop.models import Product

    for _ in range(times):
        with transaction.atomic("lake"):
            first = Product.objects.using("lake").create(name="first", price=-9)
            Product.objects.using("lake").bulk_create(
                Product(name=str(first.pk), price=1) for _ in range(9)
            )
    return times


def count(times):
    """Add one to the same row `times` times, again after each conflict."""
    from django.db import OperationalError, transaction

    from tests.shop.models import Customer

    conflicts = done = 0
    while done < times:
        try:
            with transaction.atomic("lake"):
                row = Customer.objects.using("lake").get(name="counter")
                row.country = str(int(row.country) + 1)
                row.save(update_fields=["country"])
            done += 1
        except OperationalError as error:
            if "Run" not in str(error) or "again" not in str(error):
                raise
            conflicts += 1
            time.sleep(0.01 * conflicts)
    return conflicts


def read(times):
    """Look `times` times; returns how often a transaction was seen in part, and the rows seen."""
    from django.db.models import Count, Sum

    from tests.shop.models import Product

    broken, rows = 0, 0
    for _ in range(times):
        seen = Product.objects.using("lake").aggregate(rows=Count("pk"), total=Sum("price"))
        broken += bool(seen["rows"] % 10 or (seen["total"] or 0) != 0 or seen["rows"] < rows)
        rows = seen["rows"]
    return [broken, rows]


def main(name, catalog, folder, act, times):
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from tests.integration.duckdb_alias import alias_with

    options = {"ducklake": {"catalog": catalog, "data_path": folder}}
    with alias_with(options, name=name, alias="lake"):
        answer = {"write": write, "count": count, "read": read}[act](int(times))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
