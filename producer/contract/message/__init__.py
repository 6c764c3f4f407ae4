"""A job and the Celery message that carries it, written and read by the same rules."""
