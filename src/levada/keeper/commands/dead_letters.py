"""List the records that a store or handler could not take; retry or drop one."""

from __future__ import annotations

import json
from argparse import SUPPRESS, ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ... import conf
from ...conf import settings
from ...outbox.models import DeadLetter
from ..lending import kept
from .failure import Failure


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_subparsers(dest="what", metavar="WHAT")
    listing = what.add_parser("list", help="list them (the default)")
    # SUPPRESS: the default of `list` must not undo what stands before the word.
    for each, default in ((parser, False), (listing, SUPPRESS)):
        for option, meaning in (("--all", "decided ones as well"), ("--json", "one object a line")):
            each.add_argument(option, action="store_true", default=default, help=meaning)
    for word, meaning in (
        ("retry", "try it again now, and keep it if it fails again"),
        ("drop", "give it up: its change never reaches the consumer"),
    ):
        deciding = what.add_parser(word, help=meaning)
        deciding.add_argument("ids", nargs="+", type=int, metavar="ID")


def handle(command: BaseCommand, options: dict[str, Any]) -> int:
    """List or decide."""
    what = options["what"] or "list"
    if what == "list":
        return _list(command, decided=options["all"], as_json=options["json"])
    from ...apply import dead_letters  # needs DuckDB, which a project of handlers alone lacks

    for number in options["ids"]:
        letter = _waiting(number)
        if what == "retry":
            _retry(letter)
        else:
            dead_letters.drop(number)
        done = {"retry": "retried", "drop": "dropped"}[what]
        command.stdout.write(f"{number}: {done}")
    return 0


def _retry(letter: DeadLetter) -> None:
    """Retry; a store must be level with its source for that, so somebody has to keep it."""
    from ...apply import dead_letters

    of_store = letter.consumer in conf.store_aliases()
    with kept(*(("relay", f"apply:{letter.consumer}") if of_store else ())):
        dead_letters.retry(letter.pk)


def _waiting(number: int) -> DeadLetter:
    letter = DeadLetter.objects.using(settings.SOURCE).filter(pk=number).first()
    if letter is None:
        raise Failure(f"There is no dead letter {number}. See: manage.py levada dead-letters")
    if letter.state != DeadLetter.State.WAITING:
        raise Failure(
            f"Dead letter {number} was {letter.state} already, at {letter.decided_at}. "
            f"See: manage.py levada dead-letters --all"
        )
    return letter


def _list(command: BaseCommand, *, decided: bool, as_json: bool) -> int:
    letters = DeadLetter.objects.using(settings.SOURCE).order_by("id")
    if not decided:
        letters = letters.filter(state=DeadLetter.State.WAITING)
    found = False
    for letter in letters.iterator():
        found = True
        command.stdout.write(_json(letter) if as_json else _text(letter))
    if not found and not as_json:
        command.stdout.write("No dead letters.")
    return 0


def _text(letter: Any) -> str:
    what = f"{letter.label} {letter.key}".strip() or letter.topic
    return (
        f"{letter.pk}  {letter.state}  {letter.consumer}  {what}  "
        f"at {letter.topic}:{letter.offset}, {letter.tries} tries\n    {letter.reason}"
    )


def _json(letter: Any) -> str:
    names = (
        *("id", "consumer", "epoch", "topic", "offset", "label", "key"),
        *("reason", "tries", "state", "created_at", "decided_at"),
    )
    return json.dumps({name: getattr(letter, name) for name in names}, default=str)
