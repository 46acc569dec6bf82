"""Refusals: one line with the argument, its value and the rule."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

HUGE = 10**400
"""An int beyond every float."""


def shown(value: Any) -> str:
    """A short test id: expected fragments by the first, an array by its dtype and shape."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value[0]
    if isinstance(value, dict):
        return " ".join(f"{name}={shown(field)}" for name, field in value.items()) or "plain"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, int) and abs(value) >= HUGE:
        return f"an int of {value.bit_length()} bits"
    name = getattr(value, "__name__", None) or (value if isinstance(value, str) else repr(value))
    return re.sub(r"\s+", " ", name)[:40]


def assert_refused(call: Callable[[], object], *fragments: str) -> None:
    """Assert that ``call`` raises a one-line ``ValueError`` whose message holds ``fragments``."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the fragments are the match
        call()
    message = str(caught.value)
    assert "\n" not in message, f"one line, not: {message}"
    assert len(message) < 300, f"a message that can be read, not: {message}"
    missing = [fragment for fragment in fragments if fragment not in message]
    assert not missing, f"{missing} should be in: {message}"
