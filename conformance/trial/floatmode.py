"""The floating-point mode of this thread: what a backend may change, and must restore."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_SMALLEST = 2.0**-1074


class FloatMode(NamedTuple):
    """Whether subnormal numbers are flushed to 0, and NumPy's error handling."""

    flushes: bool
    errors: Mapping[str, Any]


def current() -> FloatMode:
    """Read the mode."""
    return FloatMode(flushes=_SMALLEST * 1.0 == 0.0, errors=np.geterr())


def restore(mode: FloatMode) -> list[str]:
    """Restore ``mode``, and return what had changed, in words."""
    now, changed = current(), []
    if now.errors != mode.errors:
        changed.append("NumPy's error handling")
        np.seterr(**mode.errors)
    if now.flushes != mode.flushes:
        changed.append("the flushing of subnormal numbers")
        if "torch" in sys.modules:
            sys.modules["torch"].set_flush_denormal(mode.flushes)
    return changed
