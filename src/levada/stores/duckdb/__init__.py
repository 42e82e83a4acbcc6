"""DuckDB as a Django database and as a replica."""
