"""
Capture: triggers that write every row change into the outbox, in its own transaction.

`install()` makes them, `migrate` calls it, and `docs/capture.md` shows what a
DBA sees. Modules, along the way a change takes:

    context     who is acting: an actor and a request id for every change made inside
    session     what each Django connection to the source carries: DDL watch, number, context
    flushing    what `manage.py flush` leaves alone
    sqlite      the triggers of one table on SQLite
    postgresql  the function and triggers of one table on PostgreSQL
    installer   compares what should be there with what is, and changes the difference
"""

from .context import context, current_context
from .installer import install, stale, trigger_sql, uninstall

__all__ = ["context", "current_context", "install", "stale", "trigger_sql", "uninstall"]
