"""Events of the bits that sorts compare: the sign of -0.0, and the last bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.generators.construct import table_cases, with_inputs
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import FLOAT32

Rows = npt.NDArray[np.float32]

_SQUARE = ("gate_delta", "hidden_scale")
"""Arrays as wide as the hidden states."""


def _signed(bounds: Bounds) -> Rows | None:
    """Return logits whose zeros have the signs that a backend sees, ``[T, E]``, or None.

    They are given, or a gate of one column: a sum of several products loses the sign.
    """
    inputs = bounds.inputs
    if inputs.logits is not None:
        return inputs.logits
    if inputs.hidden_size == 1 and (inputs.hidden > 0.0).all():
        return inputs.hidden * inputs.gate_weight.T
    return None


def _with_zeros(case: Case, row: Rows) -> Iterator[Case]:
    """Yield a case of ``row``, and with a gate of one column that is ``row``."""
    yield case
    if case.inputs.logits is None and {*case.inputs.arrays()}.isdisjoint(_SQUARE):
        column = np.full((case.config.num_experts, 1), -3.0, np.float32)
        column[: len(row), 0] = row[: len(column)]
        hidden = np.ones((case.inputs.num_tokens, 1), np.float32)
        yield with_inputs(case, hidden=hidden, gate_weight=column)


def _negative_zero(bounds: Bounds) -> bool:
    """Return whether -0.0 stands above logits below 0."""
    rows = _signed(bounds)
    if rows is None:
        return False
    zero = (rows == 0.0) & np.signbit(rows)
    return bool((zero.any(axis=1) & (zero | (rows < 0.0)).all(axis=1)).any())


@event("negative-zero-logit", "a logit of -0.0 above logits below 0", _negative_zero)
def _(capabilities: Capabilities) -> Iterator[Case]:
    row = np.array([-1.0, -0.0, -2.0, -0.5], np.float32)
    for top_k in (2, 1):
        for case in table_cases(capabilities, [row], top_k=top_k):
            yield from _with_zeros(case, row)


def _zeros_tie(bounds: Bounds) -> bool:
    """Return whether the last expert selected has a logit of -0.0, and the next one of 0.0."""
    rows, k, config = _signed(bounds), bounds.config.top_k, bounds.config
    if rows is None or k == config.num_experts or bounds.inputs.expert_table is not None:
        return False
    competing = bounds.reference.competing
    pair = np.argsort(-competing, axis=1, kind="stable")[:, k - 1 : k + 1]
    values, zeros = (np.take_along_axis(a, pair, axis=1) for a in (competing, rows))
    tied = (values[:, 0] == values[:, 1]) & (zeros == 0.0).all(axis=1)
    return bool((tied & np.signbit(zeros[:, 0]) & ~np.signbit(zeros[:, 1])).any())


@event(
    "zeros-tie",
    "a logit of -0.0 ties at the cut with one of 0.0, whose expert has the higher id",
    _zeros_tie,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    kept = {"score and weights": lambda pair: pair[0] == "identity"}  # others lose the sign
    above = [8.0 - n for n in range(7)]
    rows = {1: [-0.0, 0.0, -1.0, -2.0], 2: [2.0, -0.0, 0.0, -1.0], 8: [*above, -0.0, 0.0, -1.0]}
    for wants in (kept, {}):
        for top_k, row in rows.items():
            for case in table_cases(capabilities, [row], top_k=top_k, wants=wants):
                yield from _with_zeros(case, np.array(row, np.float32))


def _last_bit_decides(bounds: Bounds) -> bool:
    """Return whether experts decide whose values are apart by a rounding of float32 or two."""
    k, config = bounds.config.top_k, bounds.config
    shared = config.groups is not None and config.groups.from_each
    if shared or k == config.num_experts or bounds.inputs.expert_table is not None:
        return False
    ranked = -np.sort(-bounds.reference.competing[bounds.only_reference], axis=1)
    last, next_ = ranked[:, k - 1], ranked[:, k]
    return bool((last - next_ <= 4.0 * FLOAT32.unit_roundoff * np.abs(last)).any())


@event(
    "last-bit-decides",
    "experts decide whose exact scores differ in their last bits alone",
    _last_bit_decides,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"score and weights": lambda pair: pair[0] == "identity"}
    size = fitting_experts(capabilities, 8)
    up = 1.0 + np.arange(size) * 2.0**-23
    for top_k in (2, 1, 4, 8):
        yield from table_cases(capabilities, [up, 3.0 - up], top_k=top_k, wants=wants)
