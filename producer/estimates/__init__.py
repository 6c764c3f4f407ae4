"""When a queued job will start and end: the snapshot, the estimate, and admission by it."""
