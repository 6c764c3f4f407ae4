"""Jobs that clients leave with the gateway: their record, and how a job is told."""
