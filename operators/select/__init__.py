"""Cheap decisions over one row."""
