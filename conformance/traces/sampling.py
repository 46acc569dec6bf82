"""The tokens of a trace that are looked at before it is judged, and layers in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_WINDOWS, _WINDOW = 8, 256


def windows(tokens: int) -> list[tuple[int, int]]:
    """Return the windows of tokens that are looked at, spread evenly; all where these are few."""
    if tokens <= _WINDOWS * _WINDOW:
        return [(0, tokens)]
    starts = np.linspace(0, tokens - _WINDOW, _WINDOWS).astype(int)
    return [(int(start), int(start) + _WINDOW) for start in starts]


def numbers_in_words(numbers: Sequence[int]) -> str:
    """Return numbers as ranges: ``0-2, 7``."""
    return ", ".join(f"{a}-{b}" if a != b else f"{a}" for a, b in _ranges(sorted(numbers)))


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = numbers[0]
    for each in numbers[1:]:
        if each != last + 1:
            yield first, last
            first = each
        last = each
    yield first, last
