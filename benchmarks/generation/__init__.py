"""Generation: how fast its batches are, whether its words are right, and what it costs to stream them."""
