"""The same questions on a real GPU, where there is neither a network nor a model hub."""
