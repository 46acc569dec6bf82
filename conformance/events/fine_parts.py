"""Events of a linear bias and a LoRA delta in float32, by numbers that 16 bits do not hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import BFLOAT16, FLOAT16, FloatFormat

_STEPS = 1.0 + np.arange(4) * 2.0**-12
_WIDE = {"dtypes": lambda dtypes: {*dtypes} <= {"float32", "input"}}


def _decides(bounds: Bounds, name: str) -> bool:
    """Return whether a right router may choose otherwise if it rounded an array to 16 bits."""
    array = getattr(bounds.inputs, name)
    if array is None or bounds.inputs.dtype != "float32" or not bounds.only_reference.any():
        return False
    return all(_differs(bounds, name, array, form) for form in (BFLOAT16, FLOAT16))


def _differs(bounds: Bounds, name: str, array: Any, form: FloatFormat) -> bool:
    rounded: dict[str, Any] = {name: np.float32(form.round(array))}
    then = Bounds(bounds.config, with_changes(bounds.inputs, **rounded), bounds.numerics)
    now, other = (np.sort(b.reference.expert_ids, axis=1) for b in (bounds, then))
    return bool((bounds.only_reference & (now != other).any(axis=1)).any())


@event(
    "fine-gate-bias",
    "a linear bias decides by numbers that 16 bits do not hold, with inputs in float32",
    lambda b: _decides(b, "gate_bias"),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (1, 2):
        yield from table_cases(
            capabilities, np.zeros((1, 4)), top_k=top_k, gate_bias=_STEPS, wants=_WIDE
        )


@event(
    "fine-delta",
    "a LoRA delta decides by numbers that 16 bits do not hold, with inputs in float32",
    lambda b: _decides(b, "gate_delta"),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    delta = np.zeros((4, 4))
    delta[1:, 0] = _STEPS[1:]
    for top_k in (1, 2):
        yield from table_cases(
            capabilities, [[1.0, 0.0, 0.0, 0.0]], top_k=top_k, gate_delta=delta, wants=_WIDE
        )
