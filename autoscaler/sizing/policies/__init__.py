"""One scaling policy a file. ``autoscaler/sizing/policy.py`` knows them by name."""
