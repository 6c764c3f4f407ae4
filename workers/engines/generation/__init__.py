"""Text generation with continuous batching."""
