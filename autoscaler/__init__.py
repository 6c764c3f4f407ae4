"""The right number of workers: GPUs, demand, policy and launchers, in a process of its own."""
