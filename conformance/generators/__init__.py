"""Generators: Hypothesis strategies and recipes for routing cases."""
