"""Sizing: demand, its history and forecast, and the policies that turn them into replicas."""
