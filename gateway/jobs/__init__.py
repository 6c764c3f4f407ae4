"""Asynchronous jobs of the gateway: their records, and the responses about them."""
