"""The page The channel: watch a commit travel, race the databases, lose the replica, rebuild it."""
