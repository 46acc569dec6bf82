"""The trial of experts' gradients, and the boundary that they come through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.calls.expert_gradients import ExpertGradientCase
from moe_routing.conformance.judge.expert_gradients import Learning
from moe_routing.conformance.judge.gradients import Judged
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed, as_numbers, to_numpy
from moe_routing.reference import ExpertGradients
from moe_routing.reference.formats import Numbers


@dataclass(frozen=True, eq=False)
class ExpertGradientTrial(BaseTrial[ExpertGradientCase]):
    """One call of experts' gradients for one adapter."""

    method: str = "expert_gradients"

    @property
    def learning(self) -> Learning:
        """What follows from the call, under the products that the adapter claims."""
        return self.once(learning_of, self.capabilities.computes.products)

    @property
    def facts(self) -> Learning:
        """The value that events are read from."""
        return self.once(learning_of)

    @property
    def parts(self) -> frozenset[str]:
        """The gradients that the answer has. Errors: as ``received``."""
        return frozenset(self.received)

    @cached_property
    def received(self) -> dict[str, Numbers]:
        """The gradients by name, in float32 where that holds them.

        Errors: ``Raised``, ``Malformed``.
        """
        return read(self.native, self.case)

    @cached_property
    def judged(self) -> dict[str, Judged]:
        """The judge's verdict on each gradient that is claimed or there. Errors: as above."""
        claimed, received = self.capabilities.computes.gradients, self.received
        judged = self.learning.judged(received)
        return {n: each for n, each in judged.items() if n in claimed or n in received}

    @property
    def allowance_used(self) -> float:
        """The greatest share of a radius that a gradient used, where there is one."""
        if "judged" not in vars(self):
            return 0.0
        return max((_used(each) for each in self.judged.values()), default=0.0)


def _used(judged: Judged) -> float:
    """Return the greatest share of a radius; none of what is certain, whose radius nobody made."""
    if judged.surely_right:
        return 0.0
    ball = judged.permitted
    open_ = ball.decided & (ball.rad > 0.0)
    off = np.abs(judged.answered[open_] - ball.mid[open_]) / ball.rad[open_]
    return float(off.max(initial=0.0))


def learning_of(case: ExpertGradientCase, products: str = "float32") -> Learning:
    """Return what follows from a case."""
    inputs = case.inputs
    return Learning(case.config, inputs.forward, inputs.cotangent.astype(np.float64), products)


def read(raw: object, case: ExpertGradientCase) -> dict[str, Numbers]:
    """Read an answer of any array library. Errors: ``Malformed``, in one line."""
    if not isinstance(raw, ExpertGradients):
        kind = "None" if raw is None else f"a {type(raw).__name__}"
        raise Malformed(f"expert_gradients returned {kind}, but should return ExpertGradients")
    found: dict[str, Numbers] = {}
    for name, native in raw.arrays().items():
        given = getattr(case.inputs, name)
        if given is None:
            raise Malformed(f"there is a gradient of {name}, but the call has no {name}")
        array = to_numpy(name, native)
        if array.dtype.kind != "f" or array.shape != given.shape:
            raise Malformed(
                f"the gradient of {name} is of shape {array.shape} and dtype {array.dtype}, "
                f"but should be floating point of shape {given.shape}"
            )
        found[name] = as_numbers(array)
    return found
