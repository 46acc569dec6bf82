"""What drops are judged by: the capacities that honest arithmetic gives, and laws on what is kept.

Which routes are kept is judged exactly. A capacity is a product that may be rounded: where it lies
within rounding of a whole number, both neighbours are permitted (docs/spec/judging.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from moe_routing.conformance.judge import balls
from moe_routing.conformance.judge.ball_sums import total
from moe_routing.conformance.judge.balls import Ball
from moe_routing.reference import CapacityConfig, Routes
from moe_routing.reference.capacity import kept_routes, priority
from moe_routing.reference.formats import FLOAT32, Bools, Floats, Ids
from moe_routing.reference.routes import ABSENT

_ROUNDINGS = 4
"""Of the factor, T / E, a product with K, and the product of these."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Miss:
    """One place that breaks a law: in words, with the token, the slot and the expert, if any."""

    words: str
    token: int | None = None
    slot: int | None = None
    expert: int | None = None


@dataclass(frozen=True, eq=False)
class Demand:
    """What follows from the routes of a call: how many each expert has, and has room for."""

    config: CapacityConfig
    routes: Routes

    @cached_property
    def present(self) -> Bools:
        """Whether each route is there, ``[T, K]``."""
        there: Bools = self.routes.expert_ids != ABSENT
        return there

    @cached_property
    def counts(self) -> Ids:
        """The routes of each expert, ``[E]``."""
        return self.counted(self.present)

    @cached_property
    def exact(self) -> Fraction:
        """The capacity before it is rounded."""
        return self.config.exact(self.routes.num_tokens, self.routes.top_k)

    @cached_property
    def room(self) -> tuple[int, int]:
        """The least and the greatest capacity that honest arithmetic gives."""
        tokens, exact = self.routes.num_tokens, self.exact
        slack = 0 if self._held() else (1 + Fraction(FLOAT32.unit_roundoff)) ** _ROUNDINGS - 1
        least, most = (self.config.of(exact * (1 + side * slack), tokens) for side in (-1, 1))
        return least, most

    @cached_property
    def kept(self) -> Bools:
        """The routes that the reference keeps, ``[T, K]``; for events alone."""
        return kept_routes(self.config, self.routes)

    @cached_property
    def priority(self) -> Floats:
        """What routes are kept by, ``[T, K]``, the least first."""
        return priority(self.config.order, self.routes)

    @cached_property
    def before(self) -> Floats:
        """The weights of present routes, 0 elsewhere, ``[T, K]``."""
        return np.where(self.present, self.routes.weights.astype(np.float64), 0.0)

    def counted(self, routes: Bools) -> Ids:
        """Return how many of these routes each expert has, ``[E]``."""
        ids = self.routes.expert_ids[routes]
        return np.bincount(ids, minlength=self.config.num_experts).astype(np.int64)

    def permitted(self, kept: Bools) -> Ball:
        """Return the weights that the survivors ``kept`` may have, ``[T, K]``."""
        after = Ball.exact(np.where(kept, self.before, 0.0))
        if self.config.survivors == "kept":
            return after
        left = total(after, FLOAT32)
        some = left.mid > 0.0
        by = Ball(np.where(some, left.mid, 1.0)[:, None], np.where(some, left.rad, 0.0)[:, None])
        if self.config.survivors == "normalized":
            return balls.div(after, by, FLOAT32)
        whole = total(Ball.exact(self.before), FLOAT32)
        ratio = balls.div(Ball(whole.mid[:, None], whole.rad[:, None]), by, FLOAT32)
        return balls.mul(after, ratio, FLOAT32)

    def named(self, token: int, slot: int) -> str:
        """Return ``token 3, slot 1``."""
        return f"token {token}, slot {slot}"

    def _held(self) -> bool:
        """Whether float32 holds all that any way of computing the capacity may round."""
        factor, tokens, top_k = Fraction(self.config.factor), self.routes.num_tokens, 1
        if self.config.share == "one":
            return _fits(factor)
        if self.config.share == "routes":
            top_k = self.routes.top_k
        each = Fraction(tokens, self.config.num_experts)
        parts = (factor, factor * top_k, factor * tokens, factor * tokens * top_k)
        return all(map(_fits, (*parts, each, each * top_k, each * factor, self.exact)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Dropped:
    """An answer, read: which routes are kept, ``[T, K]`` in the call's slots, and their weights.

    ``others`` are pairs of a token and an expert that are kept, and are no route of the call, or
    are kept twice. ``weights [T, K]`` are 0 where the answer has nothing; ``lost`` is the greatest
    weight that a token of the answer gives to what is dropped, ``[T]``.
    """

    kept: Bools
    weights: Floats
    lost: Floats
    others: tuple[tuple[int, int], ...] = ()


def no_others(demand: Demand, answer: Dropped) -> Miss | None:
    """Only routes of the call are kept, each once."""
    if not answer.others:
        return None
    token, expert = answer.others[0]
    has = expert in demand.routes.expert_ids[token]
    why = "twice" if has else "though that is none of its experts"
    return Miss(words=f"token {token} keeps expert {expert} {why}", token=token)


def respected(demand: Demand, answer: Dropped) -> Miss | None:
    """No expert keeps more than its capacity."""
    found, most = demand.counted(answer.kept), demand.room[1]
    if not (found > most).any():
        return None
    e = int(np.argmax(found > most))
    return Miss(words=f"expert {e} keeps {found[e]} routes: its capacity is {most}", expert=e)


def none_needlessly(demand: Demand, answer: Dropped) -> Miss | None:
    """An expert that drops anything is full."""
    found, due = demand.counted(answer.kept), np.minimum(demand.counts, demand.room[0])
    if not (found < due).any():
        return None
    e = int(np.argmax(found < due))
    lost = demand.present & ~answer.kept & (demand.routes.expert_ids == e)
    t, k = (int(i) for i in np.argwhere(lost)[0])
    words = (
        f"{demand.named(t, k)} is dropped, but expert {e} keeps {found[e]} "
        f"of {demand.counts[e]} routes: its capacity is {demand.room[0]}"
    )
    return Miss(words=words, token=t, slot=k, expert=e)


def in_order(demand: Demand, answer: Dropped) -> Miss | None:
    """No route is dropped for one that comes after it."""
    if demand.config.order == "free":
        return None
    ids, rank = demand.routes.expert_ids, demand.priority
    lost = demand.present & ~answer.kept
    last = np.full(demand.config.num_experts, -np.inf)
    np.maximum.at(last, ids[answer.kept], rank[answer.kept])
    wrong = lost & (rank < np.where(lost, last[ids], -np.inf))
    if not wrong.any():
        return None
    t, k = (int(i) for i in np.argwhere(wrong)[0])
    e = int(ids[t, k])
    stays = answer.kept & (ids == e) & (rank == last[e])
    other = demand.named(*(int(i) for i in np.argwhere(stays)[0]))
    words = f"{demand.named(t, k)} is dropped by expert {e}, which keeps {other}, after it"
    return Miss(words=words, token=t, slot=k, expert=e)


def survivors(demand: Demand, answer: Dropped) -> Miss | None:
    """What is kept weighs what the rule says."""
    if demand.config.survivors == "free":
        return None
    permitted = demand.permitted(answer.kept)
    wrong = answer.kept & ~permitted.contains(answer.weights)
    if not wrong.any():
        return None
    t, k = (int(i) for i in np.argwhere(wrong)[0])
    mid, rad = float(permitted.mid[t, k]), float(permitted.rad[t, k])
    due = f"{mid:.9g}" + (f", within {rad:.3g}" if rad else "")
    words = f"{demand.named(t, k)} weighs {answer.weights[t, k]:.9g}, but should weigh {due}"
    return Miss(words=words, token=t, slot=k, expert=int(demand.routes.expert_ids[t, k]))


def nothing_lost(demand: Demand, answer: Dropped) -> Miss | None:
    """What is dropped weighs exactly 0."""
    wrong = ~(answer.lost == 0.0)
    if not wrong.any():
        return None
    t = int(np.argmax(wrong))
    return Miss(words=f"what token {t} lost weighs {answer.lost[t]:.9g}, not 0", token=t)


def _fits(value: Fraction) -> bool:
    """Whether float32 holds a number."""
    bottom: Any = value.denominator
    return bottom & (bottom - 1) == 0 and value.numerator.bit_length() <= FLOAT32.precision
