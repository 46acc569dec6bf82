"""Which outputs of a whole layer rounding can explain (docs/spec/layer.md, "Judging")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge.ball_sums import total
from moe_routing.conformance.judge.balls import TINY, Ball, known, rounded
from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.experts import Layer, slot_balls
from moe_routing.conformance.judge.intervals import underflow
from moe_routing.conformance.judge.shared_experts import contribution_bounds
from moe_routing.conformance.judge.weights import weight_bounds
from moe_routing.reference import LayerConfig, LayerInputs
from moe_routing.reference.formats import INPUT_FORMATS, Bools, FloatFormat, Floats, Ids


@dataclass(frozen=True, eq=False)
class LayerFacts:
    """What follows from a call of a layer: the bounds of its routing, its shared expert's share.

    ``bounds`` are those of the routing call, ``products`` what float32 products are made in.
    """

    config: LayerConfig
    inputs: LayerInputs
    bounds: Bounds
    products: str = "float32"

    @property
    def form(self) -> FloatFormat:
        """The format in which results may be stored."""
        return INPUT_FORMATS[self.inputs.dtype]

    @cached_property
    def shared(self) -> Ball | None:
        """What the shared expert may add, ``[T, H]``, or None where there is none."""
        if (inputs := self.inputs.shared) is None:
            return None
        with np.errstate(all="ignore"):
            bounds = contribution_bounds(self.config.shared, inputs)
            return known((bounds.lo + bounds.hi) / 2.0, (bounds.hi - bounds.lo) / 2.0)

    @cached_property
    def routed(self) -> Routed:
        """The layer at the routes that rounding permits: undecided where there are several."""
        ids = self.bounds.reference.expert_ids
        with np.errstate(all="ignore"):
            found = weight_bounds(self.bounds, self.bounds.from_reference, ids)
        lo, hi = found.permitted.lo, found.permitted.hi
        firm = (self.bounds.only_reference & found.decided & self.bounds.judged)[:, None]
        with np.errstate(invalid="ignore"):
            rad = np.where(firm, (hi - lo) / 2.0, np.inf)
            return Routed(self, ids, known((lo + hi) / 2.0, rad))

    def at(self, ids: Ids, weights: Floats) -> Routed:
        """Return the layer at the routes that its answer has, whose ids are in range."""
        return Routed(self, ids, known(weights, np.zeros(weights.shape)))


@dataclass(frozen=True, eq=False)
class Routed:
    """A layer at routes ``[T, K]``, whose weights are known up to a radius."""

    facts: LayerFacts
    ids: Ids
    weights: Ball

    @cached_property
    def layer(self) -> Layer:
        """The call of the experts at these routes, with weights that float32 holds."""
        config, inputs = self.facts.config, self.facts.inputs
        weights = self.weights.mid.astype(np.float32)
        return Layer(config.experts, inputs.experts_at(self.ids, weights), self.facts.products)

    @cached_property
    def output(self) -> Ball:
        """The permitted outputs, ``[T, H]``: slots and the shared expert, added in any order.

        A weight may be rounded once more, to the dtype. A factor of all weights may be applied to
        their sum instead, so that what each adds is rounded once more, and what was flushed
        before is scaled.
        """
        facts = self.facts
        form, scale = facts.form, facts.config.router.scale
        slots = self._slots
        if scale != 1.0:
            slots = rounded(slots, form)
            flushed = 2.0 * (TINY + underflow(form)) * abs(scale)
            slots = known(slots.mid, slots.rad + flushed)
        parts = _stacked(slots, facts.shared)
        return total(parts, form, axis=1, stores=parts.mid.shape[1])

    @property
    def _slots(self) -> Ball:
        config, inputs = self.facts.config, self.facts.inputs
        weights = rounded(self.weights, self.facts.form)
        lost = ~np.isfinite(weights.rad)
        bare = inputs.experts_at(self.ids, np.zeros(self.ids.shape, np.float32))
        slots = slot_balls(
            config.experts, bare, self.facts.products, form=self.facts.form, weights=weights
        )
        away = np.asarray(lost.any(axis=1))[:, None, None]
        rad = np.where(away, np.inf, slots.rad)
        return known(slots.mid, rad)

    @property
    def decided(self) -> Bools:
        """The tokens ``[T]`` of whose outputs anything is known."""
        return np.asarray(self.output.decided.any(axis=1))


def _stacked(slots: Ball, shared: Ball | None) -> Ball:
    """Return the summands of each token, ``[T, N, H]``."""
    if shared is None:
        return slots
    mid = np.concatenate([slots.mid, shared.mid[:, None]], axis=1)
    return Ball(mid, np.concatenate([slots.rad, shared.rad[:, None]], axis=1))
