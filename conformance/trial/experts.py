"""The trial of a layer's experts, and the boundary that its output comes through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.judge.experts import Layer
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed, to_numpy
from moe_routing.reference.formats import Bools, Floats


@dataclass(frozen=True, eq=False)
class ExpertsTrial(BaseTrial[ExpertsCase]):
    """One call of a layer's experts for one adapter."""

    method: str = "experts"

    @property
    def layer(self) -> Layer:
        """What follows from the call, under the products that the adapter claims."""
        return self.once(layer_of, self.capabilities.computes.products)

    @property
    def facts(self) -> Layer:
        """The value that events are read from."""
        return self.once(layer_of)

    @cached_property
    def output(self) -> Floats:
        """The answer, ``[T, H]`` in float64. Errors: ``Raised``, ``Malformed``."""
        return read(self.native, self.case)

    def reread(self) -> Floats:
        """Read the same answer once more: another call may have written over it."""
        return read(self.native, self.case)

    @cached_property
    def wrong(self) -> Bools:
        """Which outputs, ``[T, H]``, rounding cannot explain. Errors: as ``output``."""
        return ~self.layer.permits(self.output)

    @property
    def allowance_used(self) -> float:
        """The greatest share of a radius that the answer used, where there is one.

        Of a large call it is that of one token, the nearest to its bound.
        """
        if "output" not in vars(self):
            return 0.0
        ball, output = self.layer.closest(self.output)
        open_ = ball.decided & (ball.rad > 0.0)
        off = np.abs(output[open_] - ball.mid[open_]) / ball.rad[open_]
        return float(off.max(initial=0.0))


def layer_of(case: ExpertsCase, products: str = "float32") -> Layer:
    """Return what follows from a case."""
    return Layer(case.config, case.inputs, products)


def read(native: object, case: ExpertsCase) -> Floats:
    """Read an answer of any array library. Errors: ``Malformed``."""
    if native is None:
        raise Malformed("experts returned None, but should return an array [T, H]")
    output = to_numpy("the output", native)
    if output.dtype.kind != "f":
        raise Malformed(f"the output is of dtype {output.dtype}, but should be floating point")
    shape = (case.num_tokens, case.inputs.hidden_size)
    if output.shape != shape:
        raise Malformed(f"the output has shape {output.shape}, but should be {shape}")
    return output.astype(np.float64)
