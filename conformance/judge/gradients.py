"""Which gradients rounding can explain, at the backend's own ids (docs/spec/judging.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from moe_routing.conformance.judge.balls import Ball, rounded
from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.certain_rows import certainly_right
from moe_routing.conformance.judge.gradient_balls import (
    undecided,
    where,
    within,
)
from moe_routing.conformance.judge.gradient_products import PRODUCTS, GateGradients
from moe_routing.conformance.judge.intervals import store_unit
from moe_routing.conformance.judge.judged import Judged as Judged
from moe_routing.conformance.judge.least_starts import least_start
from moe_routing.conformance.judge.logit_gradients import LogitGradients, logit_gradients
from moe_routing.conformance.judge.logit_points import LogitPoints, reference_points
from moe_routing.conformance.judge.logits import format_of
from moe_routing.conformance.judge.scale_gradients import certainly_scales, scale_gradient
from moe_routing.conformance.judge.verdict import Answer, own_logits
from moe_routing.reference import Gradients
from moe_routing.reference import gradients as reference_gradients
from moe_routing.reference.formats import Bools, Floats, Ids, Numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientFacts:
    """What the judge knows of a call of gradients before it sees an answer.

    ``known`` are the permitted gradients of the logits, from the reference's logits, by the experts
    that they are at: many answers have the same.
    """

    bounds: Bounds
    cotangent: Floats
    known: dict[bytes, LogitGradients] = field(default_factory=dict)

    def at_logits(self, ids: Ids) -> LogitGradients:
        """Return the permitted gradients of the logits at ``ids``, from the reference's logits."""
        key = ids.tobytes()
        if key not in self.known:
            later = self.bounds.from_reference
            self.known[key] = logit_gradients(self.bounds, later, ids, self.cotangent)
        return self.known[key]

    @cached_property
    def points(self) -> LogitPoints:
        """The exact logits, and how far off those of a backend may be at the least."""
        return reference_points(self.bounds)

    @cached_property
    def reference(self) -> Gradients:
        """The reference's gradients at the reference's experts."""
        bounds = self.bounds
        ids = bounds.reference.expert_ids
        return reference_gradients(bounds.config, bounds.inputs, ids, self.cotangent)

    @cached_property
    def chosen(self) -> Floats:
        """The cotangents of the weights, ``[T, K]``, at the reference's experts."""
        ids = self.bounds.reference.expert_ids
        return np.take_along_axis(self.cotangent, ids, axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientVerdict:
    """The judge's verdict on the gradients of one call.

    ``answer`` is the routing that they belong to, ``given`` the gradients by name; one that is
    None counts as zeros. ``routed`` says that the answer's logits are those that were routed.
    """

    facts: GradientFacts
    answer: Answer
    given: Mapping[str, Numbers]
    routed: bool

    @property
    def bounds(self) -> Bounds:
        """The bounds of the forward pass."""
        return self.facts.bounds

    @property
    def cotangent(self) -> Floats:
        """The cotangent, ``[T, E]``."""
        return self.facts.cotangent

    @cached_property
    def ids(self) -> Ids:
        """The answered experts, ``[T, K]``; those out of range are moved into it."""
        return np.clip(self.answer.expert_ids, 0, self.bounds.config.num_experts - 1)

    @cached_property
    def valid(self) -> Bools:
        """The rows ``[T]`` whose experts are all in range: the others are not judged."""
        return np.asarray((self.ids == self.answer.expert_ids).all(axis=1))

    @cached_property
    def later(self) -> SelectionBounds:
        """The bounds of the stages after the logits."""
        if self.from_own and self.answer.logits is not None:
            return self.bounds.from_logits(own_logits(self.bounds, self.answer.logits))
        return self.bounds.from_reference

    @property
    def from_own(self) -> bool:
        """Whether the answer's own logits are what it is judged from."""
        return self.routed and self.answer.logits is not None

    @cached_property
    def at_logits(self) -> LogitGradients:
        """The permitted gradients of the logits."""
        found = (
            logit_gradients(self.bounds, self.later, self.ids, self.cotangent)
            if self.from_own
            else self.facts.at_logits(self.ids)
        )
        ball = undecided(found.ball, ~self.valid[:, None])
        return LogitGradients(ball=ball, decided=found.decided & self.valid)

    @cached_property
    def reference(self) -> Gradients:
        """The reference's gradients at the same ids."""
        bounds = self.bounds
        return reference_gradients(bounds.config, bounds.inputs, self.ids, self.cotangent)

    def of(self, name: str) -> Judged:
        """Judge one gradient by its name; each name once."""
        if name not in self._judged:
            self._judged[name] = self._judge(name)
        return self._judged[name]

    @cached_property
    def _judged(self) -> dict[str, Judged]:
        return {}

    def _judge(self, name: str) -> Judged:
        given = self.given.get(name)
        if given is None:  # of the shape of what is permitted
            permitted = self._permitted(name)
            zeros = np.zeros(permitted.mid.shape)
            return Judged(name=name, answered=zeros, given=False, permit=lambda: permitted)
        return Judged(
            name=name,
            answered=given,
            given=True,
            permit=partial(self._permitted, name),
            certain=partial(self._certain, name, given),
        )

    def _certain(self, name: str, given: Numbers) -> bool:
        """Whether a gradient is right for certain: of logits, or a product with those as given."""
        bounds, own, logits = self.bounds, self.given.get("logits"), self.answer.logits
        if name == "logits":
            if logits is None or not (self.routed and self.valid.all()):
                return False
            return certainly_right(bounds, logits, self.ids, self.cotangent, given)
        if not (self.cotangent.size and self.valid.all()):
            return False
        if name == "per_expert_scale":
            return certainly_scales(bounds, self._points, self.ids, self.cotangent, given)
        if name not in PRODUCTS:
            return False
        if own is None:
            start = self._least_start
        else:
            mid = own.astype(np.float64, copy=False)
            start = Ball(mid, np.zeros((1, 1))) if self._known.all() else None
        if start is None:
            return False
        if name == "gate_delta" and self._is_of_gate(given):
            return True
        gate = GateGradients(bounds.config, bounds.inputs, bounds.numerics, start)
        return gate.certainly(name, given)

    def _is_of_gate(self, given: Numbers) -> bool:
        """Whether a gradient of the delta is that of the gate, which certainly is right."""
        one, both = self.bounds.inputs, ("gate_weight", "gate_delta")
        same = one.dtype_of(both[0]) == one.dtype_of(both[1]) and both[0] in self.given
        return same and np.array_equal(self.given[both[0]], given) and self.of(both[0]).surely_right

    @property
    def _points(self) -> LogitPoints:
        """The logits that the answer is judged from, as points."""
        own = self.answer.logits
        return self.facts.points if own is None or not self.routed else LogitPoints(own)

    @cached_property
    def _least_start(self) -> Ball | None:
        """A ball of the gradient of the logits within the permitted one, if it is cheap."""
        return least_start(self.bounds, self._points, self.ids, self.cotangent, self._walked)

    def _walked(self, rows: Ids) -> Ball:
        """Return the permitted gradient of the logits of some rows."""
        some = self.bounds.repeated(rows, logits=False, later=False)
        later = self.later.alone(rows)
        return logit_gradients(some, later, self.ids[rows], self.cotangent[rows]).ball

    def _permitted(self, name: str) -> Ball:
        if name == "logits":
            return self.at_logits.ball
        if name == "selection_bias":
            return Ball.exact(np.zeros(self.bounds.config.num_experts))
        if name == "per_expert_scale":
            judged = self.bounds.judged & self.valid
            return scale_gradient(self.bounds, self.later, self.ids, self.cotangent, judged)
        bounds = self.bounds
        return GateGradients(bounds.config, bounds.inputs, bounds.numerics, self._start).of(name)

    @cached_property
    def _start(self) -> Ball:
        """The gradient of the logits that products start from: the backend's own, if it has one.

        It may be cast to the format of the logits on the way.
        """
        own = self.given.get("logits")
        if own is None:
            return self.at_logits.ball
        form = format_of(self.bounds.config.logits_dtype, self.bounds.inputs)
        with np.errstate(all="ignore"):
            held, exact = form.represents(own), Ball.exact(own)
        cast = where(held, exact, rounded(exact, form, 0)) if store_unit(form) else exact
        return undecided(within(cast, form), ~self._known)

    @property
    def _known(self) -> Bools:
        """Where the gradient of the logits, which is given, is decided; all of it at ``[1, 1]``."""
        logits = self.of("logits")
        return np.ones((1, 1), dtype=bool) if logits.surely_right else logits.permitted.decided
