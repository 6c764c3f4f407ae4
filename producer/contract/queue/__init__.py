"""The shape of a queue in Redis: lanes of tenants, and how jobs leave a queue without being run."""
