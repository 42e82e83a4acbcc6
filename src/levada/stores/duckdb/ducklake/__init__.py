"""
A DuckLake as a Django database: rows in Parquet files, their catalogue in PostgreSQL.

Any number of hosts read and write one lake at once: each process has a DuckDB
in memory that attaches it. What a lake lacks (keys, unique and check
constraints, indexes, RETURNING) is left out or done here: automatic keys come
from sequences in the catalogue (`keys.py`).
"""
