"""Access to the gateway: API keys, and the authentication of requests."""
