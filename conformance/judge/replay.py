"""Which replayed routes are right: ids exactly, weights at forced ids by what rounding explains.

Source: ``docs/spec/replay.md``, ``docs/spec/judging.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.rows import NONE
from moe_routing.conformance.judge.verdict import Answer, own_logits
from moe_routing.conformance.judge.weights import WeightBounds, weight_bounds
from moe_routing.implementations import Numerics
from moe_routing.reference import Recorded, RouterConfig, RouterInputs
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.replay import forced_config, forced_inputs
from moe_routing.reference.routes import ABSENT


@dataclass(frozen=True, eq=False)
class ReplayFacts:
    """What the judge knows of a replay before it sees an answer.

    ``routing`` are the bounds of the call without a record.
    """

    config: RouterConfig
    inputs: RouterInputs
    recorded: Recorded
    numerics: Numerics

    @cached_property
    def routing(self) -> Bounds:
        """The bounds of the same call, routed."""
        return Bounds(self.config, self.inputs, self.numerics)

    @cached_property
    def bounds(self) -> Bounds:
        """The bounds of the stages that a replay has: nothing is chosen."""
        return Bounds(forced_config(self.config), forced_inputs(self.inputs), self.numerics)

    @property
    def replayed(self) -> bool:
        """Whether the record has anything of the layer."""
        return self.recorded.layer is not None

    @cached_property
    def ids(self) -> Ids:
        """The experts to force, ``[T, K]``; none without a record of the layer."""
        return self.recorded.ids if self.replayed else np.zeros((0, self.config.top_k), np.int64)

    @cached_property
    def present(self) -> Bools:
        """Which routes are there, ``[T, K]``."""
        return np.asarray(self.ids != ABSENT)

    @cached_property
    def weights(self) -> Floats | None:
        """The recorded weights, ``[T, K]``, where there are any."""
        found = self.recorded.forced_weights if self.replayed else None
        return None if found is None else found.astype(np.float64)

    @cached_property
    def permitted(self) -> Permitted:
        """The permitted weights, from the reference's logits."""
        return permitted_weights(self, self.bounds.from_reference)

    @cached_property
    def chosen(self) -> Ids:
        """What the reference would choose, ``[T, K]``."""
        return self.routing.reference.expert_ids


@dataclass(frozen=True, kw_only=True, eq=False)
class Permitted:
    """The permitted weights ``[T, K]``, which are ``decided``, and the ``parts`` of each count."""

    weights: Interval
    decided: Bools
    parts: tuple[tuple[Ids, Ids, WeightBounds], ...] = ()


def permitted_weights(facts: ReplayFacts, later: SelectionBounds) -> Permitted:
    """Bound the weights of present routes, of an equal number of slots at a time; 0 elsewhere."""
    shape, present = facts.ids.shape, facts.present
    lo, hi, decided = np.zeros(shape), np.zeros(shape), np.ones(shape, dtype=bool)
    counts, parts = present.sum(axis=1), []
    with np.errstate(all="ignore"):
        for count in np.unique(counts[counts > 0]).tolist():
            rows = np.flatnonzero(counts == count)
            tokens, slots = np.nonzero(present[rows])
            at = facts.ids[rows][tokens, slots].reshape(len(rows), count)
            found = weight_bounds(facts.bounds, later.rows(rows), at)
            places = rows[tokens], slots
            lo[places], hi[places] = found.permitted.lo.ravel(), found.permitted.hi.ravel()
            decided[places] = np.repeat(found.decided, count)
            if found.row is not None:
                parts.append((rows, slots.reshape(len(rows), count), found))
    return Permitted(weights=Interval(lo, hi), decided=decided, parts=tuple(parts))


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayVerdict:
    """The judge's verdict on a replay of which there is a record."""

    facts: ReplayFacts
    answer: Answer
    routed: bool

    @cached_property
    def permitted(self) -> Permitted:
        """The permitted weights, from the backend's own logits where those were routed."""
        facts, own = self.facts, self.answer.logits
        if not self.routed or own is None:
            return facts.permitted
        return permitted_weights(facts, facts.bounds.from_logits(own_logits(facts.bounds, own)))

    @cached_property
    def wrong_ids(self) -> Bools:
        """Which slots ``[T, K]`` hold another expert than is recorded for them."""
        return np.asarray(self.answer.expert_ids != self.facts.ids)

    @cached_property
    def wrong_weights(self) -> Bools:
        """Which weights ``[T, K]`` are wrong, of slots with the right expert.

        Recorded weights and those of absent routes are exact; others are what rounding explains.
        """
        answered, present = self.answer.weights, self.facts.present
        if (recorded := self.facts.weights) is not None:
            return np.asarray((answered != recorded) & ~self.wrong_ids)
        fine = self.permitted.weights.contains(answered)
        fine |= ~self.permitted.decided & np.isnan(answered)
        open_ = present & ~self.facts.bounds.judged[:, None]
        wrong = ~(fine | open_)
        return np.asarray((wrong | self._apart(wrong | open_)) & ~self.wrong_ids)

    def _apart(self, wrong: Bools) -> Bools:
        """Return the slots of 16 bits that no factor of their row explains together."""
        found = np.zeros(wrong.shape, dtype=bool)
        for rows, slots, bound in self.permitted.parts:
            held = np.take_along_axis(self.answer.weights[rows], slots, axis=1)
            judged = ~wrong[rows].any(axis=1) & bound.decided
            assert bound.row is not None
            pairs = bound.row.apart(held, judged)
            for row, which, pair in zip(rows, slots, pairs, strict=True):
                found[row, which[pair[pair != NONE]]] = True
        return found
