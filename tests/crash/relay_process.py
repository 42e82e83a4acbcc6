"""
A relay in a process of its own, to be killed.

    python -m tests.crash.relay_process DATABASE_NAME LOG_PATH BATCH_ROWS

Relays until it is killed; exits with 3 when it is fenced.
"""

import os
import sys
import threading

import django
from django.db import connections


def main(database: str, log_path: str, batch_rows: str) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    connections["default"].settings_dict["NAME"] = database

    from levada.errors import LogFenced
    from levada.log.embedded import EmbeddedLog
    from levada.outbox.sources import open_source
    from levada.relay import Relay

    relay = Relay(open_source("default"), EmbeddedLog(log_path), batch_rows=int(batch_rows))
    print("started", flush=True)
    try:
        relay.run(threading.Event())
    except LogFenced:
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
