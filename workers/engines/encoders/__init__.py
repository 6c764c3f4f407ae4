"""The encoder engines embed, classify and rerank, which run batches packed by length."""
