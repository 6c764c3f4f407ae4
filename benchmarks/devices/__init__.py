"""Faults of GPUs, made on purpose."""
