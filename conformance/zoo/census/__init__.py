"""The census: every mutant and honest variant against every clause."""
