"""Who may use the gateway: API keys, and the check of each request."""
