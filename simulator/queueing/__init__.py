"""Queues on the virtual clock: order, routing, preemption."""
