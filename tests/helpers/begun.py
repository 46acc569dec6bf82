"""Commands that would run something, and what is raised in place of the run."""

from __future__ import annotations

CHECK = ("check", "reference", "--clause=weights.sum", "--max-examples=1", "--no-isolate")
ZOO = ("zoo", "scale-twice", "--clause=weights.scale", "--max-examples=1", "--jobs=1")
ADAPTERS = ("adapters", "reference")


class Begun(Exception):
    """A run has begun."""
