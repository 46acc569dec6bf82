"""Checks of plain arguments: each raises a ``ValueError`` of one line that names the argument."""

from __future__ import annotations

import math
from typing import TypeGuard

_WIDTH = 80


def shown(value: object) -> str:
    """Return ``value`` as messages show it: in one line of at most 80 characters."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an int of more digits than Python prints
        return f"<{type(value).__name__} too long to show>"
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def counted(number: int, noun: str) -> str:
    """Return ``1 case`` or ``2 cases``, of a noun whose plural takes an s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether ``value`` is an int or a float; a bool is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def require_count(name: str, value: object, *, at_least: int) -> None:
    """Raise ``ValueError`` unless ``value`` is an int (not a bool) of ``at_least`` or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"Expected {name} to be an int but got {_typed(value)}")
    if value < at_least:
        raise ValueError(f"Expected {name} >= {at_least} but got {shown(value)}")


def require_real(
    name: str, value: object, *, at_least: float = -math.inf, above: float = -math.inf
) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite real number within the bounds."""
    if not is_number(value):
        raise ValueError(f"Expected {name} to be a number but got {_typed(value)}")
    if not _is_finite(value):
        raise ValueError(f"Expected {name} to be finite in float64 but got {shown(value)}")
    if value < at_least:
        raise ValueError(f"Expected {name} >= {at_least:g} but got {value!r}")
    if value <= above:
        raise ValueError(f"Expected {name} > {above:g} but got {value!r}")


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(choices)
        raise ValueError(f"Expected {name} to be one of {listed} but got {shown(value)}")


def require_flag(name: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"Expected {name} to be True or False but got {_typed(value)}")


def require_kind(name: str, value: object, kind: type) -> None:
    """Raise ``ValueError`` unless ``value`` is None or a ``kind``."""
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"Expected {name} to be None or a {kind.__name__} but got {_typed(value)}")


def require_part(name: str, value: object, kind: type) -> None:
    """Raise ``ValueError`` unless ``value`` is a ``kind``."""
    if not isinstance(value, kind):
        raise ValueError(f"Expected {name} to be a {kind.__name__} but got {_typed(value)}")


def _typed(value: object) -> str:
    return f"{shown(value)} (type={type(value).__name__})"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond float64
        return False
