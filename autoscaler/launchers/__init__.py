"""How a decision becomes a worker: on this machine, or on a cluster."""
