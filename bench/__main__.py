"""Run every benchmark, with SQLite and, where one is named, with PostgreSQL as the source."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

NAMES = ("capture", "latency", "queries", "backend")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rows", type=int, help="in place of each benchmark's own number")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))} is no benchmark; there are {', '.join(NAMES)}")
    rows = [f"--rows={options.rows}"] if options.rows else []
    failed = 0
    for name in options.names or NAMES:
        for source in dict.fromkeys(("", os.environ.get("LEVADA_TEST_SOURCE", ""))):
            command = [sys.executable, "-m", f"bench.{name}", f"--source={source}", *rows]
            failed |= subprocess.run(command, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
