"""Actions: what one round starts and drains, each with its reason."""
