"""Which job runs next, and when: the queue's atomic claim, its leases and the policies."""
