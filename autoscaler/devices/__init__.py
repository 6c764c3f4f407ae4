"""Devices: what NVML or the fleet file reports, faults and quarantine, placement."""
