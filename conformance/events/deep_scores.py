"""Conditions: winners whose biased scores lie far below zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import ROWS, event, selected
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Floats


def _deep(name: str, least: float, bias: Sequence[float], row: Sequence[float]) -> None:
    """Register events of winners far below zero, shown by a bias, or by the logits alone."""

    def shown(capabilities: Capabilities) -> Iterator[Case]:
        for top_k in (2, 1):
            yield from table_cases(capabilities, ROWS, top_k=top_k, selection_bias=bias)
            yield from table_cases(capabilities, [row], top_k=top_k)

    event(
        f"scores-below-minus-{name}-win",
        f"the winning biased scores are all finite and below {least:,.0f}",
        lambda b: _finite_below(_winning(b), least),
    )(shown)
    event(
        f"winner-at-minus-{name}-or-below",
        f"a winning biased score of {least:,.0f} or below",
        lambda b: bool((_winning(b) <= least).any()),
    )(shown)


def _winning(bounds: Bounds) -> Floats:
    return selected(bounds, bounds.reference.biased)[bounds.judged]


def _finite_below(values: Floats, bound: float) -> bool:
    return bool(((values < bound) & np.isfinite(values)).all(axis=1).any())


_NEVER = float("-inf")
_deep("1", -1.0, [-3.0, -3.25, -3.5, -2.75], [-2.0, -1.5, -3.0, -4.0])
_deep("10000", -1e4, [-3e4, _NEVER, -3.5e4, -2.75e4], [-2e4, -1.5e4, -3e4, -4e4])


@event(
    "excluded-winner",
    "a winning biased score of -inf",
    lambda b: bool(np.isneginf(_winning(b)).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for bias in ([_NEVER, 0.25, _NEVER, _NEVER], [_NEVER] * 4):
        for top_k in (2, 1):
            yield from table_cases(capabilities, ROWS, top_k=top_k, selection_bias=bias)
