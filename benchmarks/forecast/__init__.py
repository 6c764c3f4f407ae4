"""How well arrivals are forecast, beside a library that does nothing else."""
