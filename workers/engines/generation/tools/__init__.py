"""Tools: how a model calls them, read from its answers and forced by grammar."""
