"""The contract between all processes: jobs, settings, keys, heartbeats, errors. Imports nothing of ours."""
