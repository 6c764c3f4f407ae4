"""Batches over the gateway: how much memory a million lines take, and what is left of 20,000 under fire."""
