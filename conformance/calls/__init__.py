"""Calls: what a backend is called with, as values; one module for each kind of case."""
