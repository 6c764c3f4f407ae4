"""The batch window beside greedy, fixed windows, no batching and the clairvoyant best."""
