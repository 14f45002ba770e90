"""Balancing over the whole pool."""
