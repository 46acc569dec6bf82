"""Runs: many clauses, many adapters, in processes."""
