"""``python -m benchmarks.queue_path``: what the way through the queue costs, ours beside eight others."""
