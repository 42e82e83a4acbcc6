"""
A script behind every number we print.

    python -m bench                      all of it, SQLite and PostgreSQL
    python -m bench.capture --help       what capture costs a writer
    python -m bench.latency --help       from commit to visible in the replica
    python -m bench.queries --help       the ORM on source and replica

Each writes bench/results/<name>.json and .md: figures, ratios, the machine,
the rows, the command. PostgreSQL is the database that --source or
LEVADA_TEST_SOURCE names; `make bench` starts one for the purpose. A database
of its own is made there and dropped again.
"""
