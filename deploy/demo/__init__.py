"""The demo (``make demo``): a fleet from zero to zero."""
