"""
Run the test suite with an SQLite source and, at the same time, with a PostgreSQL source.

    python scripts/run_tests.py [PYTEST ARGUMENT …]

The second half needs an installed PostgreSQL (or LEVADA_TEST_SOURCE); without
one it is skipped with a notice, or fails under LEVADA_REQUIRE_SERVICES=1.
Exit status: 0 when every half that could run passed, 5 when no test was chosen.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import with_postgres

WITH_POSTGRES = Path(__file__).with_name("with_postgres.py")
NO_TESTS_COLLECTED = 5
"""pytest's exit status when arguments or marks left nothing to run."""

NOTICE = """\
******************************************************************************
*  NOT TESTED: a PostgreSQL source. No PostgreSQL is installed here.
*  The tests above ran with an SQLite source alone.
*  To run the other half:  apt-get install postgresql, then make test
******************************************************************************"""


def heading(source: str) -> None:
    """Print which source the tests below run with."""
    print(f"\n=== The suite with {source} as the source\n", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run both halves at once; what the second prints is shown when the first is done."""
    pytest = [sys.executable, "-m", "pytest", *arguments]
    without_source = {key: os.environ[key] for key in os.environ if key != "LEVADA_TEST_SOURCE"}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of `finally` below
    with tempfile.TemporaryFile() as printed:
        other = subprocess.Popen(
            [sys.executable, WITH_POSTGRES, *pytest], stdout=printed, stderr=subprocess.STDOUT
        )
        try:
            heading("SQLite")
            sqlite = subprocess.run(pytest, env=without_source, check=False).returncode
            postgresql = other.wait()
        finally:
            if other.poll() is None:
                other.terminate()  # it hands the signal on and lets its server end
                other.wait()
        heading("PostgreSQL")
        printed.seek(0)
        print(printed.read().decode(errors="replace"), flush=True)
    if postgresql == with_postgres.NOT_INSTALLED:
        print(NOTICE)
        postgresql = 1 if os.environ.get("LEVADA_REQUIRE_SERVICES") else 0
    failed = [each for each in (sqlite, postgresql) if each not in (0, NO_TESTS_COLLECTED)]
    return failed[0] if failed else sqlite


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
