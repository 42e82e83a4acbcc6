"""Apply: log to stores; snapshot, rebuild, verify, handlers."""
