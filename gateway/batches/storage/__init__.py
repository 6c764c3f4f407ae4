"""What is kept of a batch: records and its lease in Redis, files and the parts of its output in the store."""
