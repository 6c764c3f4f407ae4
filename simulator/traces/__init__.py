"""Traces: recorded or synthetic requests, read from any known format."""
