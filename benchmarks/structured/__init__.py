"""Structured output: validity, cost, and libraries compared."""
