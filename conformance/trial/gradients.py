"""The trial of gradients, and the boundary that they come through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.gradients import GradientFacts, GradientVerdict
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import (
    Malformed,
    Received,
    as_numbers,
    receive,
    to_numpy,
)
from moe_routing.implementations import Numerics, RouterGradients
from moe_routing.reference import GRADIENTS
from moe_routing.reference.formats import Numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Differentiated:
    """An answer, read: the routing, and its gradients by name, in float32 where that holds them."""

    routing: Received
    gradients: dict[str, Numbers]


@dataclass(frozen=True, eq=False)
class GradientTrial(BaseTrial[GradientCase]):
    """One call of gradients for one adapter."""

    method: str = "gradients"

    @property
    def facts(self) -> GradientFacts:
        """The value that events are read from."""
        return self._facts

    @cached_property
    def _facts(self) -> GradientFacts:
        config, numerics = self.lenience.applied(self.case.config, self.capabilities.numerics)
        case = self.case
        if config is not case.config:
            case = self.memo.once(case, _configured, config)
        made: GradientFacts = self.memo.once(case, facts_of, numerics)
        return made

    @property
    def layout(self) -> str:
        """The name of the layout of the routing. Errors: ``Raised``, ``Malformed``."""
        return self.received.routing.layout

    @property
    def parts(self) -> frozenset[str]:
        """The gradients that the answer has. Errors: as ``layout``."""
        return frozenset(self.received.gradients)

    @cached_property
    def received(self) -> Differentiated:
        """The answer, read. Errors: ``Raised``, ``Malformed``."""
        return read(self.native, self.case)

    @cached_property
    def verdict(self) -> GradientVerdict:
        """The judge's verdict on the answer. Errors: as ``received``."""
        received = self.received
        return GradientVerdict(
            facts=self._facts,
            answer=received.routing.answer,
            given=received.gradients,
            routed=self.capabilities.logits == "routed",
        )

    def judges(self, name: str) -> bool:
        """Whether the gradient of an input is to be judged: it is there, claimed or answered."""
        there = name == "logits" or getattr(self.case.inputs, name) is not None
        claimed = name in self.capabilities.differentiated
        return there and (claimed or name in self.received.gradients)


def facts_of(case: GradientCase, numerics: Numerics) -> GradientFacts:
    """Return what the judge knows before it sees an answer."""
    inputs = case.inputs
    bounds = Bounds(case.config, inputs.router, numerics)
    return GradientFacts(bounds=bounds, cotangent=inputs.cotangent.astype(np.float64))


def _configured(case: GradientCase, config: Any) -> GradientCase:
    return replace(case, config=config)


def read(raw: object, case: GradientCase) -> Differentiated:
    """Read a native answer. Errors: ``Malformed``, in one line."""
    if not isinstance(raw, RouterGradients):
        kind = "None" if raw is None else f"a {type(raw).__name__}"
        raise Malformed(f"gradients returned {kind}, but should return RouterGradients")
    routing = receive(raw.routing, case.config, case.inputs.num_tokens, hides=True)
    found: dict[str, Numbers] = {}
    for name, native in raw.arrays().items():
        array = to_numpy(name, native)
        shape = _shape(name, case)
        if array.dtype.kind != "f" or array.shape != shape:
            raise Malformed(
                f"the gradient of {name} is of shape {array.shape} and dtype {array.dtype}, "
                f"but should be floating point of shape {shape}"
            )
        found[name] = as_numbers(array)
    return Differentiated(routing=routing, gradients=found)


def _shape(name: str, case: GradientCase) -> tuple[int, ...]:
    """Return the shape of a gradient. Errors: ``Malformed`` where there is no such input."""
    assert name in GRADIENTS
    if name == "logits":
        return case.inputs.num_tokens, case.config.num_experts
    array = getattr(case.inputs, name)
    if array is None:
        raise Malformed(f"there is a gradient of {name}, but the call has no {name}")
    return tuple(array.shape)
