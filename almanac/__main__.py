"""Run a management command of the project: `python -m almanac migrate`."""

import os
import sys


def main(arguments: list[str] | None = None) -> None:
    """Hand `arguments` (default: the command line) to Django with the project's settings."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "almanac.config.settings")
    from django.core.management import execute_from_command_line

    from almanac.config.settings import DATA

    DATA.mkdir(parents=True, exist_ok=True)
    execute_from_command_line(sys.argv if arguments is None else arguments)


if __name__ == "__main__":
    main()
