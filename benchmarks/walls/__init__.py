"""Attacks on a real fleet, with the latency of a neighbour beside each."""
