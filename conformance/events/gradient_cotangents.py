"""Events of gradients: a cotangent's digits and sizes, how it lies in memory, and many tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.events.gradient_gates import gated_or_given
from moe_routing.conformance.events.gradients import Makes, Occurs, flows, rows_of
from moe_routing.conformance.events.registry import ROWS, event
from moe_routing.conformance.generators.construct import with_inputs
from moe_routing.conformance.generators.gradients import may_be_fine, with_cotangent
from moe_routing.conformance.judge.gradients import GradientFacts
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import BFLOAT16, FLOAT16, Floats


def _given(
    slug: str,
    statement: str,
    occurs: Occurs,
    makes: Makes,
    change: Callable[[GradientCase], GradientCase | None],
) -> None:
    """Register an event that the cases of ``makes`` show once ``change`` made their cotangent."""

    @event(
        f"gradient-{slug}",
        statement,
        lambda facts: isinstance(facts, GradientFacts) and bool(occurs(facts)),
    )
    def _(capabilities: Capabilities) -> Iterator[GradientCase]:
        for case in makes(capabilities):
            made = change(with_cotangent(case, fine=may_be_fine(case)))
            if made is not None:
                yield made


def _is_fine(facts: GradientFacts) -> bool:
    """Return whether neither bfloat16 nor float16 holds a cotangent of some answered expert."""
    given: Floats = facts.chosen[facts.bounds.judged]
    held = BFLOAT16.represents(given) | FLOAT16.represents(given)
    return flows(facts, "logits") and not bool(held.all())


def _counts_late(facts: GradientFacts, tokens: int) -> bool:
    """Return whether ``tokens`` or more are there, and the last one has a gradient."""
    few = facts.bounds.inputs.num_tokens < tokens or not facts.bounds.judged.all()
    return not few and bool(facts.reference.logits[-1].any())


def _lies_in_columns(facts: GradientFacts) -> bool:
    return not facts.cotangent.flags.c_contiguous and flows(facts, "logits")


def _is_of_all_sizes(facts: GradientFacts) -> bool:
    sizes = np.abs(facts.chosen[facts.bounds.judged])
    least = sizes[sizes > 0.0].min(initial=np.inf)
    return flows(facts, "logits") and bool(sizes.max(initial=0.0) > _MOST and least < _LEAST)


def _of_all_sizes(case: GradientCase) -> GradientCase | None:
    """Return the case with tokens whose cotangents are large, tiny and neither, by turns."""
    if case.inputs.dtype == "float16":
        return None  # which holds none of them
    turns = np.arange(case.inputs.num_tokens)[:, None] % 3
    factors = np.array([2.0**18, 2.0**-36, 1.0], np.float32)[turns]
    return with_inputs(case, cotangent=case.inputs.cotangent * factors)


def _in_columns(case: GradientCase) -> GradientCase | None:
    turned = np.asfortranarray(case.inputs.cotangent)
    return replace(case, inputs=replace(case.inputs, cotangent=turned))


def _of_zeros(case: GradientCase) -> GradientCase | None:
    return with_inputs(case, cotangent=np.zeros_like(case.inputs.cotangent))


_MOST, _LEAST = FLOAT16.largest, FLOAT16.tiny * FLOAT16.unit_roundoff
"""A number above the one, or below the other, is infinite or 0 in float16."""

MANY = 1024
"""Tokens that one block of a kernel sums over, at the most."""

_given(
    "fine-cotangent",
    "a cotangent that 16 bits do not hold",
    _is_fine,
    rows_of(),
    lambda case: case,
)
_given(
    f"tokens-above-{MANY}",
    f"more than {MANY:,} tokens, the last of which has a gradient",
    lambda facts: _counts_late(facts, MANY + 1),
    gated_or_given(rows=np.resize(np.array(ROWS), (MANY + 1, 4))),
    lambda case: case,
)
_given(
    f"whole-blocks-of-{MANY}",
    f"tokens of a number that {MANY:,} divides, the last of which has a gradient",
    lambda facts: _counts_late(facts, 1) and facts.bounds.inputs.num_tokens % MANY == 0,
    gated_or_given(rows=np.resize(np.array(ROWS), (MANY, 4))),
    lambda case: case,
)
_given(
    "strided-cotangent",
    "a cotangent that is not laid out in rows",
    _lies_in_columns,
    rows_of(),
    _in_columns,
)
_given(
    "cotangent-of-all-sizes",
    "cotangents that are infinite in float16, and some that are 0 there",
    _is_of_all_sizes,
    rows_of(),
    _of_all_sizes,
)
_given(
    "zero-cotangent",
    "tokens whose cotangents are all 0, as where a loss masks them",
    lambda facts: not facts.cotangent.any() and bool(facts.bounds.judged.any()),
    rows_of(),
    _of_zeros,
)
