"""What is wrong with a trace, in one line."""

from __future__ import annotations


class TraceError(Exception):
    """A trace that cannot be read or judged: the words name the file, the key and the fix."""
