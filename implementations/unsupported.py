"""The refusal of a call that a backend does not claim."""

from __future__ import annotations


class Unsupported(Exception):
    """Raised by a backend in place of an answer to a call that it does not claim."""
