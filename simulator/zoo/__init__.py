"""The workload zoo: generated families of load, on half of which the policies may be tuned."""
