"""The fleet on a virtual clock: the live order of queues and the live autoscaler, on recorded requests."""
