"""
The admin: what waits in the outbox, what nobody could take, what is captured, how far all are.

Everything is read-only, except that a person with the right to change dead
letters may retry or drop them. The page *Status* asks the stores themselves
and is open to who may view the replicated tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from . import conf
from .errors import Timeout
from .models import DeadLetter, Outbox, ReplicatedTable, VerifiedTable

RETRY_S = 3.0
"""How long all retries of one request may wait for a store to be level with its source."""


class ReadOnlyAdmin(admin.ModelAdmin):
    """Shows rows that only Levada itself writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds rows by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits rows by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes rows by hand: a deleted outbox row is a change that never arrives."""
        return False


@admin.register(Outbox)
class OutboxAdmin(ReadOnlyAdmin):
    """The changes that the log does not hold yet."""

    list_display = ("id", "op", "label", "topic", "key", "changed_at")
    list_filter = ("op", "topic", "label")
    search_fields = ("=key", "label")
    ordering = ("id",)
    show_full_result_count = False


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    """The records that a store or handler could not take, with two ways to decide."""

    list_display = (
        "id",
        "state",
        "consumer",
        "label",
        "key",
        "short_reason",
        "tries",
        "created_at",
    )
    list_filter = ("state", "consumer", "label")
    search_fields = ("=key", "label", "reason")
    ordering = ("-id",)
    actions = ("retry", "drop")

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Say whether this person may retry and drop."""
        return bool(request.user.has_perm("levada.change_deadletter"))

    @admin.display(description="reason")
    def short_reason(self, letter: DeadLetter) -> str:
        """Return the reason's first line."""
        first = letter.reason.partition("\n")[0]
        return first if len(first) <= 120 else first[:119] + "…"

    @admin.action(description="Retry the selected dead letters", permissions=["decide"])
    def retry(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        """Try each once more, oldest first; one that fails again stays. Waits RETRY_S at most."""
        give_up_at = time.monotonic() + RETRY_S
        self._decide(request, queryset, lambda letter: _retry(letter, give_up_at), "retried")

    @admin.action(description="Drop the selected dead letters", permissions=["decide"])
    def drop(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        """Give each up."""
        from .apply import dead_letters

        self._decide(request, queryset, lambda letter: dead_letters.drop(letter.pk), "dropped")

    def _decide(
        self,
        request: HttpRequest,
        queryset: QuerySet[DeadLetter],
        decide: Callable[[DeadLetter], None],
        done: str,
    ) -> None:
        waiting = queryset.filter(state=DeadLetter.State.WAITING).order_by("id")
        decided = 0
        for letter in waiting:
            try:
                decide(letter)
            except Exception as error:  # any handler's; the others still get their turn
                self.message_user(request, f"{letter.pk}: {error}", messages.ERROR)
            else:
                decided += 1
                self.log_change(request, letter, done)
        if decided:
            self.message_user(request, f"{decided} {done}.", messages.SUCCESS)
        elif not waiting:
            self.message_user(request, "None of them waits for a decision.", messages.WARNING)


def _retry(letter: DeadLetter, give_up_at: float) -> None:
    """Retry without keeping a web worker: raises Timeout, at once where no keeper could help."""
    from .apply import dead_letters
    from .keeper.lending import unkept

    store = letter.consumer
    if store in conf.store_aliases() and unkept("relay", f"apply:{store}"):
        raise Timeout(
            f"nobody keeps {store} level with its source now, so nothing was tried. Start a keeper "
            f"(manage.py levada run), or run: manage.py levada dead-letters retry {letter.pk}"
        )
    dead_letters.retry(letter.pk, timeout_s=max(0.0, give_up_at - time.monotonic()))


@admin.register(ReplicatedTable)
class ReplicatedTableAdmin(ReadOnlyAdmin):
    """The tables that triggers capture, and the page that says how far every store is."""

    list_display = ("label", "fingerprint", "installed_at")
    ordering = ("label",)

    def get_urls(self) -> list[URLPattern]:
        """Add the status page before the routes that take a primary key."""
        page = path("status/", self.admin_site.admin_view(self.status_view), name="levada_status")
        return [page, *super().get_urls()]

    def status_view(self, request: HttpRequest) -> HttpResponse:
        """Show the status. Raises PermissionDenied for who may not view replicated tables."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        from .keeper.status import read_status
        from .keeper.words import seconds, size

        status = read_status()
        stores = [
            {
                "store": store,
                "rows": sum(store.tables.values()),
                "size": size(store.size_bytes),
                "lag": seconds(store.lag_s),
            }
            for store in status.stores
        ]
        context = {
            **self.admin_site.each_context(request),
            "title": "Levada: status",
            "status": status,
            "stores": stores,
            "log_size": size(status.log.size_bytes),
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/levada/status.html", context)


@admin.register(VerifiedTable)
class VerifiedTableAdmin(ReadOnlyAdmin):
    """What verify found when each table was last compared."""

    list_display = ("store", "label", "equal", "source_rows", "differences", "verified_at")
    list_filter = ("store", "equal")
    ordering = ("store", "label")
