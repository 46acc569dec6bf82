"""Comparing adapters: the same cases for each, and what explains where their routes differ."""
