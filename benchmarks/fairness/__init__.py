"""What fairness among tenants is worth, and what it costs."""
