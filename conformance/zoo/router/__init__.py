"""The router that mutants and honest variants are made of: its stages, each replaceable."""
