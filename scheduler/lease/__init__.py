"""The atomic claim, leases, and what a worker holds."""
