"""
Run the test suite with an SQLite source, then with a PostgreSQL source.

    python scripts/run_tests.py [PYTEST ARGUMENT …]

The second half needs an installed PostgreSQL (or LEVADA_TEST_SOURCE); without
one it is skipped with a notice, or fails under LEVADA_REQUIRE_SERVICES=1.
Exit status: 0 when every half that could run passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import with_postgres

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
    pytest = [sys.executable, "-m", "pytest", *arguments]
    heading("SQLite")
    without_source = {key: os.environ[key] for key in os.environ if key != "LEVADA_TEST_SOURCE"}
    sqlite = subprocess.run(pytest, env=without_source, check=False).returncode
    if sqlite not in (0, NO_TESTS_COLLECTED):
        return sqlite
    heading("PostgreSQL")
    postgresql = with_postgres.main(pytest)
    if postgresql == with_postgres.NOT_INSTALLED:
        print(NOTICE)
        return 1 if os.environ.get("LEVADA_REQUIRE_SERVICES") else sqlite
    if postgresql == NO_TESTS_COLLECTED:
        return sqlite
    return postgresql


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
