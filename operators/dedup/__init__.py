"""Deduplication: reduces that keep one of each group."""
