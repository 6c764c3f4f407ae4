"""The gateway's HTTP routes, one group a file."""
