"""Embeddings of texts of mixed lengths: what the shape of a batch is worth, and whether the vectors are right."""
