"""What verify last found, remembered in the source database for status, metrics and the admin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from .. import conf
from ..conf import settings


@dataclass(frozen=True, slots=True)
class Verified:
    """
    What is known of one store.

    equal: no table differed when it was last compared. complete: every
    table was compared at least once. at: when the table compared longest
    ago was, None for a store never verified.
    """

    equal: bool
    complete: bool
    differences: int
    at: datetime | None

    @property
    def words(self) -> str:
        """The state in a word or two."""
        if self.at is None:
            return "not verified"
        if not self.equal:
            return f"{self.differences} differ"
        return "verified" if self.complete else "partly verified"


def verify_and_remember(alias: str, labels: Iterable[str] | None = None, **options: Any) -> Any:
    """Run `levada.apply.verify` and remember what it found; returns its Verification."""
    from ..apply import verify

    found = verify(alias, labels, **options)
    remember(alias, found)
    return found


def remember(alias: str, verification: Any) -> None:
    """Keep what `verification` says of each table it compared."""
    from ..outbox.models import VerifiedTable

    now = timezone.now()
    for table in verification.tables:
        VerifiedTable.objects.using(settings.SOURCE).update_or_create(
            store=alias,
            label=table.label,
            defaults={
                "equal": table.equal,
                "source_rows": table.source_rows,
                "differences": table.different + (table.problem is not None),
                "position": str(verification.position or ""),
                "verified_at": now,
            },
        )


def last_verified(alias: str) -> Verified:
    """Say what is known of the store `alias`; a table no longer replicated does not count."""
    from ..outbox.models import VerifiedTable

    labels = set(conf.replicated_in(alias))
    found = [
        row
        for row in VerifiedTable.objects.using(settings.SOURCE).filter(store=alias)
        if row.label in labels
    ]
    return Verified(
        equal=all(row.equal for row in found),
        complete={row.label for row in found} == labels,
        differences=sum(row.differences for row in found),
        at=min((row.verified_at for row in found), default=None),
    )
