"""Explaining: what went wrong, as values and in words."""
