"""
A process that iterates over many rows and tells how much memory it took.

    python -m tests.integration.duckdb_iterate PATH WAY ROWS

WAY: `alone`, `between` (another statement runs after each 100,000 rows) or
`atomic` (the same inside a transaction that writes). Prints as JSON: rows
seen, their sum, peak resident memory in bytes before and after, and whether
this process owns the file.
"""

import json
import resource
import sys

import django
from django.conf import settings


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(path, way, rows):
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "levada.stores.duckdb",
                "NAME": path,
                "OPTIONS": {"config": {"memory_limit": "200MB", "threads": 1}},
            }
        }
    )
    django.setup()
    from django.db import connection, models, transaction

    from levada.stores.duckdb import ownership

    class Number(models.Model):  # noqa: DJ008
        n = models.BigIntegerField(primary_key=True)
        text = models.TextField()

        class Meta:
            app_label = "numbers"
            db_table = "numbers"

    def iterate(limit, way):
        seen = total = 0
        for number in Number.objects.filter(n__lt=limit).iterator(chunk_size=2_000):
            if seen % 100_000 == 10 and way != "alone":
                assert Number.objects.get(n=5).text == "row number 5"
                if way == "atomic":
                    Number.objects.filter(n=5).update(n=5)
            seen += 1
            total += number.n
        return seen, total

    iterate(50_000, way)
    before = peak_bytes()
    if way == "atomic":
        with transaction.atomic():
            seen, total = iterate(rows, way)
    else:
        seen, total = iterate(rows, way)
    print(json.dumps([seen, total, before, peak_bytes(), ownership.owns(path)]))
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
