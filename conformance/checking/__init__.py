"""Checking: one clause on one adapter, from its constructed cases to the smallest failure."""
