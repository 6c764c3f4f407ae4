"""How good the estimates of waits are: followed in Redis, and calibrated by their errors."""
