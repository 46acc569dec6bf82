"""Trials: one call of a backend is made, watched, converted and judged."""
