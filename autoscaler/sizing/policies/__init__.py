"""One scaling policy a file. ``autoscaler/sizing/policy_registry.py`` knows them by name."""
