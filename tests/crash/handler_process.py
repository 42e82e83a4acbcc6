"""
A handler's runner in a process of its own, to be killed.

    python -m tests.crash.handler_process DATABASE_NAME LOG_PATH SENT_PATH

Its handler writes a row and, as a mail would leave, a line of the file at
SENT_PATH. Handles until it is killed; exits with 3 when another runner was
faster.
"""

import os
import sys
import threading

import django
from django.db import connections


def main(database: str, log_path: str, sent_path: str) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    connections["default"].settings_dict["NAME"] = database

    import levada
    from levada.apply.handlers import HandlerRunner
    from levada.errors import PositionMoved
    from levada.log.embedded import EmbeddedLog
    from tests.shop.models import Product

    @levada.subscribe("paid", group="receipts")
    def receipt(change: levada.Change) -> None:
        Product.objects.create(name=str(change.after))
        with open(sent_path, "a") as sent:
            sent.write(f"{change.after}\n")

    print("started", flush=True)
    try:
        HandlerRunner("receipts", EmbeddedLog(log_path)).run(threading.Event())
    except PositionMoved:
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
