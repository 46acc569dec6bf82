"""Cotangents: none constant along a row, exact in every dtype, of several magnitudes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.choices import Focus, choose_case
from moe_routing.conformance.generators.construct import with_inputs
from moe_routing.conformance.generators.reducer import Reduction, subsets
from moe_routing.implementations import Capabilities

Shape = tuple[int, ...]
Array = npt.NDArray[np.float32]
Draws = Callable[[np.random.Generator, Shape], npt.NDArray[np.float64]]


def _quarters(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.float64]:
    """Draw quarters from -4 to 4."""
    return rng.integers(-16, 17, shape) / 4.0


def _one_expert(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.float64]:
    """Draw one expert a token, whose weight alone counts."""
    hot = np.zeros(shape)
    if hot.size:
        hot[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = 1.0
    return hot


def _nearly_even(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.float64]:
    """Draw rows around one number, which a norm takes off all of them."""
    return 8.0 + rng.integers(-2, 3, shape) / 16.0


COTANGENTS: dict[str, Draws] = {
    "quarters": _quarters,
    "one-expert": _one_expert,
    "nearly-even": _nearly_even,
    "large": lambda rng, shape: _quarters(rng, shape) * 64.0,
    "small": lambda rng, shape: _quarters(rng, shape) / 64.0,
}
"""The distributions of cotangents, by name."""


def choose_gradient_case(choose: Choose, capabilities: Capabilities, focus: Focus) -> GradientCase:
    """Return a routing case with a cotangent, made by choices."""
    case = choose_case(choose, capabilities, focus)
    kind = choose("cotangent", ("quarters", "quarters", *COTANGENTS))
    rng = np.random.default_rng(choose("seed", range(2**16)))
    shape = (case.inputs.num_tokens, case.config.num_experts)
    drawn = COTANGENTS[kind](rng, shape)
    if choose("fine cotangent", (False, True)) and may_be_fine(case):
        drawn = drawn * FINE
    return GradientCase.of(case, drawn.astype(np.float32))


FINE = 1.0 + 2.0**-12
"""A factor that gives every cotangent digits that 16 bits do not hold, and float32 does."""


def may_be_fine(case: Case) -> bool:
    """Whether nothing of a case may be in 16 bits, so that a fine cotangent is not rounded."""
    config = case.config
    narrow = {config.logits_dtype, config.scores_dtype, config.weights_dtype} - {"float32", "input"}
    return case.inputs.dtype == "float32" and not narrow


def plain_cotangent(tokens: int, experts: int) -> Array:
    """Return the cotangent of constructed cases: quarters, no two neighbours alike."""
    t, e = np.arange(tokens)[:, None], np.arange(experts)
    return (((t * 5 + e * 3) % 11 - 4) / 4.0).astype(np.float32)


def with_cotangent(case: Case, *, fine: bool = False) -> GradientCase:
    """Return a routing case with the cotangent of constructed cases, or with a ``fine`` one."""
    plain = plain_cotangent(case.inputs.num_tokens, case.config.num_experts)
    return GradientCase.of(case, plain * np.float32(FINE) if fine else plain)


# Smaller cases.


def _one_token(case: GradientCase) -> Iterator[GradientCase]:
    """Yield the case with cotangents of 0 but for one token, so that sums have one part."""
    busy = np.flatnonzero(case.inputs.cotangent.any(axis=1))
    for t in busy[:4] if len(busy) > 1 else ():
        alone = np.zeros_like(case.inputs.cotangent)
        alone[t] = case.inputs.cotangent[t]
        yield with_inputs(case, cotangent=alone)


def _one_expert_alone(case: GradientCase) -> Iterator[GradientCase]:
    """Yield the case with one cotangent of 1 a token."""
    table = case.inputs.cotangent
    for e in range(min(table.shape[1], 8)):
        one = np.zeros_like(table)
        one[:, e] = 1.0
        if not np.array_equal(one, table) and np.count_nonzero(table) > len(table):
            yield with_inputs(case, cotangent=one)


def _in_rows(case: GradientCase) -> Iterator[GradientCase]:
    """Yield the case with the cotangent in rows."""
    if not case.inputs.cotangent.flags.c_contiguous:
        rows = np.ascontiguousarray(case.inputs.cotangent)
        yield replace(case, inputs=replace(case.inputs, cotangent=rows))


def _slots_of_a_table(case: GradientCase) -> Iterator[GradientCase]:
    """Yield the case with fewer slots of the table that gives its experts."""
    table = case.inputs.expert_table
    if table is None:
        return
    for kept in subsets(case.config.top_k):
        fewer = replace(case, config=replace(case.config, top_k=len(kept)))
        yield with_inputs(fewer, expert_table=table[:, kept])


GRADIENT_REDUCTIONS: tuple[Reduction, ...] = (
    *(_slots_of_a_table, _one_token, _one_expert_alone, _in_rows),
)
"""The reductions of the cotangent; those of routing cases come after them."""
