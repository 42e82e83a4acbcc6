"""
Make the files of almanac/calendar_events/data again from the packages that carry them.

    python -m pip install --no-deps statsmodels vega-datasets bokeh_sampledata arch
    python scripts/extract_histories.py            # writes what differs
    python scripts/extract_histories.py --check    # only says what differs; status 1 if anything

Nothing of a package is imported: its files are found by its metadata, so none
of its dependencies is needed.
"""

from __future__ import annotations

import gzip
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def carried(package: str, member: str) -> bytes | None:
    """Return the bytes of `member` as the installed `package` carries it, None without it."""
    try:
        path = distribution(package).locate_file(member)
    except PackageNotFoundError:
        return None
    content = Path(str(path)).read_bytes()
    return gzip.decompress(content) if member.endswith(".gz") else content


def main(arguments: list[str]) -> int:
    """Compare each history with its package, and write it unless `--check` is asked for."""
    from almanac.calendar_events.histories import HISTORIES

    differing = 0
    for history in HISTORIES:
        content = carried(history.package, history.member)
        if content is None:
            print(f"{history.filename}: {history.package} is not installed")
        elif history.path.exists() and history.path.read_bytes() == content:
            print(f"{history.filename}: as in {history.package}")
        else:
            differing += 1
            print(f"{history.filename}: differs from {history.package}")
            if "--check" not in arguments:
                history.path.write_bytes(content)
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "almanac.config.settings")
    import django

    django.setup()
    sys.exit(main(sys.argv[1:]))
