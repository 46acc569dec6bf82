"""Numbers in words: enough digits to tell them apart, what is permitted, short lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moe_routing.conformance.explain.token_view import SHOWN, SlotView, Span


def show(value: float, digits: int = 9) -> str:
    """Return a number with every digit that float32 can hold."""
    return format(float(value), f".{digits}g")


def span(permitted: Span) -> str:
    """Return ``[0.1, 0.2]``, or the one number that is permitted."""
    low, high = permitted
    return show(low) if low == high else f"[{show(low)}, {show(high)}]"


def listed(values: Sequence[object], size: int | None = None) -> str:
    """Return a list of the values shown, and how many more of ``size`` there are."""
    shown = [str(value) for value in values[:SHOWN]]
    more = (len(values) if size is None else size) - len(shown)
    return f"[{', '.join(shown)}{f', ... {more} more' if more else ''}]"


def missed(value: float, permitted: Span) -> str:
    """Return by how much a value lies outside what is permitted; empty if it lies inside."""
    low, high = permitted
    if low <= value <= high or np.isnan([low, high]).any():
        return ""
    beyond = low - value if value < low else value - high
    if not np.isfinite(beyond):
        return "  missed"
    allowance = (high - low) / 2.0
    share = f"{beyond / allowance:.3g} times the allowance" if allowance else "nothing is allowed"
    return f"  missed by {show(beyond, 3)}, {share}"


def slot_note(slot: SlotView) -> str:
    """Say what is wrong with a slot of the answer: its weight, or only its ratio to another."""
    if slot.right or slot.permitted is None:
        return ""
    return missed(slot.weight, slot.permitted) or "  wrong only in its ratio to the other"
