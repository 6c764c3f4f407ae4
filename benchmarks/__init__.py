"""Benchmarks: what is promised, measured. Not installed with the packages; run from a checkout."""
