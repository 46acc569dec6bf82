"""The numbers of one layer in one stretch of tokens, each read once, when it is first needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.traces.blocks import Evidence, Marks, judge_block, refuse_logits
from moe_routing.conformance.traces.dtypes import AnyArray
from moe_routing.conformance.traces.errors import TraceError
from moe_routing.conformance.traces.pieces import Files
from moe_routing.conformance.traces.router import Router
from moe_routing.conformance.traces.survey import Surveyed
from moe_routing.reference import RouterInputs
from moe_routing.reference.config import LeastPrecise
from moe_routing.reference.formats import FORMATS, Floats, Ids
from moe_routing.reference.routing import later_stages


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockData:
    """One layer of a trace, from token ``start`` to ``stop``."""

    of: Surveyed
    number: int
    start: int
    stop: int
    files: Files

    @cached_property
    def router(self) -> Router:
        """The layer's router."""
        return self.of.routers[self.number]

    def read(self, part: str) -> AnyArray | None:
        """Return a part of the layer, None where it was not recorded."""
        layer = next(x for x in self.of.trace.layers if x.number == self.number)
        field = layer.fields.get(part)
        return None if field is None else field.read(self.files, self.start, self.stop)

    @cached_property
    def ids(self) -> Ids | None:
        """The recorded experts, None where there are none."""
        found = self.read("expert_ids")
        return None if found is None else found.astype(np.int64)

    @cached_property
    def choice(self) -> Ids | None:
        """The recorded experts, or those that the logits choose; None where there are neither."""
        if self.ids is not None or self.evidence is None or not self.router.selects:
            return self.ids
        exact = self.evidence.logits.astype(np.float64)
        with np.errstate(all="ignore"):
            return later_stages(self.router.config, self.router.inputs, (), exact).expert_ids

    @cached_property
    def weights(self) -> Floats | None:
        """The recorded weights."""
        found = self.read("weights")
        return None if found is None else found.astype(np.float64)

    @cached_property
    def evidence(self) -> Evidence | None:
        """What the routes are judged from: the recorded logits, or those of hidden states."""
        logits = self.read("logits")
        return self.of_hidden if logits is None else Evidence(logits=logits)

    @cached_property
    def of_hidden(self) -> Evidence | None:
        """The logits of the recorded hidden states, None where these or the gate are missing."""
        if self.router.gate_weight is None:
            return None
        hidden = self.read("hidden")
        return None if hidden is None else of_hidden_states(self.router, hidden)

    @cached_property
    def marks(self) -> Marks | None:
        """What was found of each token; None where no ids were recorded."""
        if self.ids is None:
            return None
        marks = judge_block(self.router, self.ids, self.evidence, self.weights)
        if self.evidence is not self.of_hidden and self.of_hidden is not None:
            refuse_logits(self.router, marks, self.evidence, self.of_hidden)
        return marks


def of_hidden_states(router: Router, hidden: AnyArray) -> Evidence:
    """Return the exact logits of hidden states, and the bounds of those of honest arithmetic."""
    assert router.gate_weight is not None, "hidden states without a gate are no evidence"
    with np.errstate(all="ignore"):
        single = hidden.astype(np.float32)
    dtype = _dtype_of(router, single, router.hidden_scale) or "float32"
    whole = _dtype_of(router, single, router.hidden_scale, router.gate_weight, router.gate_bias)
    gate_dtype: LeastPrecise = "input" if whole else "float32"
    try:
        inputs = RouterInputs(
            hidden=single,
            gate_weight=router.gate_weight,
            gate_bias=router.gate_bias,
            hidden_scale=router.hidden_scale,
            dtype=whole or dtype,
            gate_dtype=gate_dtype,
        )
        bounds = Bounds(router.config, inputs, router.numerics)
        return Evidence(logits=bounds.reference.logits, permitted=bounds.logits.permitted)
    except ValueError as error:
        raise TraceError(f"The hidden states do not fit the router: {error}") from error


def _dtype_of(router: Router, *arrays: AnyArray | None) -> str | None:
    """Return the first dtype of a router that holds all these arrays, or None."""
    given = [each for each in arrays if each is not None]
    held = (dtype for dtype in router.dtypes if all(_holds(dtype, each) for each in given))
    return next(held, None)


def _holds(dtype: str, values: AnyArray) -> bool:
    return bool(FORMATS[dtype].represents(values).all())
