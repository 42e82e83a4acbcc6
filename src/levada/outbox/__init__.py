"""The outbox: the table that commits with your data."""
