"""Calls of experts whose outputs are all decided, seen at the greatest number of each array.

Derivation: docs/spec/judging.md, "Decided at a glance".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moe_routing.reference import ExpertsConfig, ExpertsInputs
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.formats import FloatFormat

_STEPS = 10
"""On the way through an expert, those of both first products counted each."""

_MOST_SLOTS, _MOST_NUMBERS = 64, 2**20
"""So many slots, and numbers of a row, add a radius that is less than what it is added to."""

_FACTORS = (*OF_EXPERTS, "weights")


def all_decided(config: ExpertsConfig, inputs: ExpertsInputs, form: FloatFormat) -> bool:
    """Whether no number on the way can pass the largest of ``form``; False where that is open."""
    if inputs.top_k > _MOST_SLOTS or max(inputs.hidden_size, inputs.width) > _MOST_NUMBERS:
        return False
    with np.errstate(all="ignore"):
        return bool(_reach(config, inputs) <= form.largest)


def _reach(config: ExpertsConfig, inputs: ExpertsInputs) -> float:
    """Return no less than the reach of any ball on the way; what is not finite stays so."""
    some = {name: _greatest(each) for name, each in inputs.arrays().items() if name in _FACTORS}
    scale = 1.0 + some["weights"]
    length = 1.0 + float(np.abs(inputs.hidden).sum(axis=1, dtype=np.float64).max(initial=0.0))
    reach = 4.0**_STEPS * inputs.top_k * scale**2 * (1.0 + config.limit) ** 2 * (1.0 + config.alpha)
    for name in ("gate", "up"):
        row = length * scale * some.get(f"{name}_weight", 0.0)
        reach *= 1.0 + row + some.get(f"{name}_bias", 0.0)
    return reach * (1.0 + inputs.width * some["down_weight"] + some.get("down_bias", 0.0))


def _greatest(array: npt.NDArray[np.float32]) -> float:
    """Return the greatest magnitude; NaN where there is one."""
    return float(np.maximum(array.max(initial=0.0), -array.min(initial=0.0)))
