"""Operators that bring media in."""
