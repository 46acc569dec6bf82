"""Judging traces: routing recorded from a run, held against the router and against another."""
