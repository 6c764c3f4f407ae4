"""``python -m benchmarks.field``: what goes wrong around a fleet, done to a real one."""
