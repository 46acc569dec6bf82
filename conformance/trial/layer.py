"""The trial of a whole layer, and the boundary that its answer comes through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.calls.layer import LayerCase
from moe_routing.conformance.judge import Bounds, Verdict, judge
from moe_routing.conformance.judge.layer import LayerFacts, Routed
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed, Received, receive, to_numpy
from moe_routing.implementations import Numerics
from moe_routing.reference import LayerResult
from moe_routing.reference.formats import Bools, Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerAnswer:
    """An answer, read: the output in float64, and the routing where the layer gave it."""

    output: Floats
    routing: Received | None


@dataclass(frozen=True, eq=False)
class LayerTrial(BaseTrial[LayerCase]):
    """One call of a layer for one adapter."""

    method: str = "layer"

    @property
    def facts(self) -> LayerFacts:
        """The value that events are read from."""
        return self._facts

    @cached_property
    def _facts(self) -> LayerFacts:
        found: LayerFacts = self.once(
            facts_of, self.capabilities.numerics, self.capabilities.computes.products
        )
        return found

    @cached_property
    def received(self) -> LayerAnswer:
        """The answer, read. Errors: ``Raised``, ``Malformed``."""
        return read(self.native, self.case)

    @cached_property
    def verdict(self) -> Verdict | None:
        """The judge's verdict on the routing, where there is one. Errors: as ``received``."""
        routing = self.received.routing
        if routing is None:
            return None
        return judge(self._facts.bounds, routing.answer, logits=self.capabilities.logits)

    @cached_property
    def due(self) -> Routed:
        """The layer at the routes that it is judged at. Errors: as ``received``.

        Those are its own where it gives any, all of whose ids are in range.
        """
        routing = self.received.routing
        if routing is None:
            return self._facts.routed
        answer = routing.answer
        below = self.case.config.router.num_experts - 1
        return self._facts.at(np.clip(answer.expert_ids, 0, below), answer.weights)

    @cached_property
    def wrong(self) -> Bools:
        """Which outputs, ``[T, H]``, rounding cannot explain. Errors: as ``received``.

        A token whose own ids are out of range is not among them: nothing is known of its experts.
        """
        wrong = ~self.due.output.contains(self.received.output)
        return wrong if self.verdict is None else wrong & self.verdict.in_range[:, None]

    @property
    def allowance_used(self) -> float:
        """The greatest share of a radius that the answer used, where there is one."""
        if "received" not in vars(self) or "due" not in vars(self):
            return 0.0
        ball = self.due.output
        open_ = ball.decided & (ball.rad > 0.0)
        off = np.abs(self.received.output[open_] - ball.mid[open_]) / ball.rad[open_]
        return float(off.max(initial=0.0))


def facts_of(case: LayerCase, numerics: Numerics, products: str = "float32") -> LayerFacts:
    """Return what the judge knows before it sees an answer."""
    bounds = Bounds(case.config.router, case.inputs.router, numerics)
    return LayerFacts(case.config, case.inputs, bounds, products)


def read(native: object, case: LayerCase) -> LayerAnswer:
    """Read a native answer. Errors: ``Malformed``, in one line."""
    if not isinstance(native, LayerResult):
        kind = "None" if native is None else f"a {type(native).__name__}"
        raise Malformed(f"layer returned {kind}, but should return LayerResult")
    if native.output is None:
        raise Malformed("the layer's output is None, but should be an array [T, H]")
    output = to_numpy("the output", native.output)
    shape = (case.num_tokens, case.inputs.hidden_size)
    if output.dtype.kind != "f" or output.shape != shape:
        raise Malformed(
            f"the output is of shape {output.shape} and dtype {output.dtype}, but should be "
            f"floating point of shape {shape}"
        )
    routing = None
    if native.routing is not None:
        routing = receive(native.routing, case.config.router, case.num_tokens)
    return LayerAnswer(output=output.astype(np.float64, order="C"), routing=routing)
