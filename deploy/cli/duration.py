"""Formatting of durations for display."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A duration in seconds, rounded for display: ``0.4 s``, ``59 s``, ``12 min``, ``3.5 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
