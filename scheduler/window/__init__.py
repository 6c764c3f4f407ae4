"""The batch window: how long a job is held for a fuller batch."""
