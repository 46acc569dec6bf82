"""The onset of a failure: the size at which it begins, and the one that still passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Onset:
    """A failure that begins at ``fails`` of a size: with any one fewer, the case passes."""

    size: str
    fails: int

    @property
    def passes(self) -> int:
        """The largest size that still passes."""
        return self.fails - 1

    @property
    def words(self) -> str:
        """The two numbers in words."""
        return f"fails at {self.size}={self.fails:,}, passes at {self.size}={self.passes:,}"


def onset_lines(onsets: Sequence[Onset]) -> tuple[str, ...]:
    """Return the line on where a failure begins, if that is known."""
    return (f"begins    {'; '.join(each.words for each in onsets)}",) if onsets else ()
