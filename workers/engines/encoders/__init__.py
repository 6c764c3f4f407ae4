"""Encoder engines: embed, classify and rerank, in batches packed by length."""
