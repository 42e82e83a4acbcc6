"""`manage.py levada …`: everything an operator does, one word each."""

from __future__ import annotations

from argparse import ArgumentParser
from types import ModuleType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError

from levada.errors import LevadaError
from levada.keeper.commands import COMMANDS, Failure


class Command(BaseCommand):
    """Hands each word to its module in `levada.keeper.commands`."""

    help = "Carry this project's committed changes into its stores, and prove that they agree."
    requires_system_checks: list[str] = []  # `run` and `doctor` ask for them

    def add_arguments(self, parser: CommandParser) -> None:
        words = parser.add_subparsers(
            dest="word", metavar="COMMAND", required=True, parser_class=ArgumentParser
        )
        for name, module in COMMANDS.items():
            summary = (module.__doc__ or "").strip().partition("\n")[0]
            sub = words.add_parser(name, help=summary, description=summary)
            module.add_arguments(sub)

    def handle(self, *args: Any, **options: Any) -> None:
        module = COMMANDS[options["word"]]
        try:
            status = module.handle(self, options)
        except Failure as failure:
            raise CommandError(str(failure), returncode=failure.status) from failure
        except LevadaError as error:
            raise CommandError(str(error), returncode=_status(module)) from error
        except (DatabaseError, OSError) as error:
            what = str(error).partition("\n")[0] or type(error).__name__
            raise CommandError(
                f"{what}. Run: manage.py levada doctor", returncode=_status(module)
            ) from error
        if status:
            raise SystemExit(status)


def _status(module: ModuleType) -> int:
    return int(getattr(module, "ERROR_STATUS", 1))
