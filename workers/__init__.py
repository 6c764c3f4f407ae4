"""The worker: a Celery application whose pool feeds one engine on one device allotment."""
