"""Whole models: their routers and experts found, and watched on real passes."""
