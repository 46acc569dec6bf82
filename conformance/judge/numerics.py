"""Which of the declared numerics matter in a call: the others change none of its bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from moe_routing.conformance.judge.operands import Matrix, merged
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT32, Bools

_PLAIN = Numerics()
_BELOW_TF32 = np.uint32(0x1FFF)  # the bits of a float32 that tf32 cuts off


def in_force(config: RouterConfig, inputs: RouterInputs, numerics: Numerics) -> Numerics:
    """Return ``numerics`` without what takes nothing from any number of this call.

    A sigmoid's form matters where a sigmoid is computed, and coarser products where an
    operand has what they cut off. A normalised input is taken to have all of it.
    """
    if numerics == _PLAIN:
        return numerics
    sigmoid = config.score == "sigmoid" or config.weights_from == "sigmoid_of_selected"
    cut = numerics.multiply == "tf32" and _loses(config, inputs, _cut_by_tf32)
    flushed = numerics.flush_subnormals and _loses(config, inputs, _subnormal)
    return replace(
        numerics,
        multiply="tf32" if cut else "exact",
        flush_subnormals=flushed,
        sigmoid=numerics.sigmoid if sigmoid else "relative",
        softplus=numerics.softplus if config.score == "sqrtsoftplus" else "relative",
    )


def products_of(numerics: Numerics) -> tuple[str, bool]:
    """Return the part of ``numerics`` that the bounds of the logits depend on."""
    return numerics.multiply, numerics.flush_subnormals


def _loses(config: RouterConfig, inputs: RouterInputs, lost: Callable[[Matrix], Bools]) -> bool:
    """Tell whether any operand of the gate's products has a number that is ``lost``."""
    operands: list[Matrix] = [inputs.hidden, inputs.gate_weight]
    if inputs.gate_delta is not None:
        operands += [inputs.gate_delta, merged(inputs.gate_weight, inputs.gate_delta)]
    return config.input_norm is not None or any(bool(lost(each).any()) for each in operands)


def _cut_by_tf32(values: Matrix) -> Bools:
    cut: Bools = (values.view(np.uint32) & _BELOW_TF32) != 0
    return cut


def _subnormal(values: Matrix) -> Bools:
    below: Bools = (np.abs(values) < FLOAT32.tiny) & (values != 0.0)
    return below
