"""The demo (``make demo``): a fleet that scales from zero and back to zero."""
