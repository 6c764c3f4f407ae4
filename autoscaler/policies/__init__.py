"""One scaling policy a file. ``autoscaler/policy.py`` knows them by name."""
