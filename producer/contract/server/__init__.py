"""The server behind ``redis.url``: its address, connections, errors, scripts, and what it must be able to do."""
