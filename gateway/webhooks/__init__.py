"""Webhooks: what is sent, where it may go, and its delivery."""
