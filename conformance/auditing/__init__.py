"""Routers and experts of a whole model, judged in place on a real pass."""
