"""Proof by breaking: kill, stop, cut off and feed rubbish to a real fleet, and count what was lost."""
