"""Plainer numbers: reductions that leave a routing case its shape and change its values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.construct import with_inputs
from moe_routing.conformance.generators.reducer import attempt
from moe_routing.reference import RouterInputs

Values = npt.NDArray[np.float32]

_VALUES = ("hidden", "gate_weight", "selection_bias", "gate_bias", "gate_delta", "per_expert_scale")
_WITH_LOGITS = ("logits", "selection_bias", "per_expert_scale")
"""Where logits are given, hidden states and gate only carry them."""

_NEAR = (16.0, 1024.0, 32768.0)
"""How far from 0 numbers may lie, nearest first; every dtype holds the last."""


def nearer(case: Case) -> Iterator[Case]:
    """Replace infinite and huge values by ones near 0, and NaN by 0: one array at a time."""
    for name, array in _values(case).items():
        for bound in _NEAR:
            near = np.clip(np.where(np.isnan(array), np.float32(0.0), array), -bound, bound)
            yield from _with_values(case, name, near)


def plainer(case: Case) -> Iterator[Case]:
    """Make values signs, small integers, quarters: whole arrays first, then one zero at a time."""
    for name, array in _values(case).items():
        with np.errstate(all="ignore"):
            simpler = (np.sign(array), np.rint(array), np.rint(array * 4.0) / 4.0)
        for values in simpler:
            if (np.isfinite(values) | ~np.isfinite(array)).all():
                yield from _with_values(case, name, values)
        for index in np.argwhere(array != 0)[:24] if array.size <= 64 else ():
            values = np.array(array)
            values[tuple(index)] = 0.0
            yield from _with_values(case, name, values)


def _values(case: Case) -> dict[str, Values]:
    """Return the arrays whose numbers can be chosen, by name."""
    arrays = case.inputs.arrays()
    names = _VALUES if case.inputs.logits is None else _WITH_LOGITS
    return {name: arrays[name] for name in names if name in arrays}


def _with_values(case: Case, name: str, values: Values) -> Iterator[Case]:
    """Yield ``case`` with other values, if they are others and its dtype holds them."""
    if np.array_equal(values, getattr(case.inputs, name), equal_nan=True):
        return
    if name == "logits":
        yield from attempt(with_logits, case, values)
    else:
        yield from attempt(with_inputs, case, **{name: values})


def with_logits(case: Case, logits: Values) -> Case:
    """Return ``case`` with other logits, and with what carries them.

    Errors: ``ValueError`` as ``RouterInputs.from_logits``.
    """
    dtype = case.inputs.dtype
    carried = RouterInputs.from_logits(logits, dtype=dtype, gate_dtype=case.inputs.gate_dtype)
    names = ("hidden", "gate_weight", "gate_bias", "logits")
    return with_inputs(case, **{name: getattr(carried, name) for name in names})
