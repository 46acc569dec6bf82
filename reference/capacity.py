"""Capacity: how many routes an expert takes, which are dropped, and what the others weigh.

Source: ``docs/spec/capacity.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np

from moe_routing.reference.checks import require_choice, require_count, require_real
from moe_routing.reference.formats import Bools, Floats
from moe_routing.reference.permutation_maps import has_repeats
from moe_routing.reference.routes import ABSENT, Routes
from moe_routing.reference.routing import Routing

Share = Literal["routes", "tokens", "one"]
Rounding = Literal["up", "down"]
Zero = Literal["nothing", "unlimited"]
DropOrder = Literal["token", "slot", "weight", "free"]
Survivors = Literal["kept", "rescaled", "normalized", "free"]

CAPACITY_WORDS: dict[str, tuple[str, ...]] = {
    "share": get_args(Share),
    "rounding": get_args(Rounding),
    "zero": get_args(Zero),
    "order": get_args(DropOrder),
    "survivors": get_args(Survivors),
}
"""The values of each field of ``CapacityConfig`` that is a word."""


@dataclass(frozen=True, kw_only=True)
class CapacityConfig:
    """How many routes an expert takes, and what happens to the others.

    The capacity is ``factor`` times a ``share``: ``routes`` is T * K / E, ``tokens`` T / E, and
    ``one`` is 1, so that the factor is the capacity itself. It is rounded ``up`` or ``down``, and
    is ``minimum`` at the least. A factor of 0 leaves that, ``nothing`` more, or is ``unlimited``.
    Routes are kept in an ``order``: by ``token``, by ``slot`` (all first choices first), by
    ``weight``, the greatest first, or any (``free``). Survivors are ``kept`` as they are,
    ``rescaled`` to the sum that their token had, ``normalized`` to a sum of 1, or weigh what they
    like (``free``). Errors: ``ValueError`` naming the field.
    """

    num_experts: int
    factor: float = 1.0
    share: Share = "routes"
    rounding: Rounding = "up"
    minimum: int = 0
    zero: Zero = "nothing"
    order: DropOrder = "token"
    survivors: Survivors = "kept"

    def __post_init__(self) -> None:
        require_count("num_experts", self.num_experts, at_least=1)
        require_real("factor", self.factor, at_least=0.0)
        require_count("minimum", self.minimum, at_least=0)
        for name, words in CAPACITY_WORDS.items():
            require_choice(name, getattr(self, name), words)
        if self.share == "one" and self.factor != int(self.factor):
            raise ValueError(
                f"Expected a whole factor with share='one' but got factor={self.factor}: "
                "it is the capacity itself"
            )

    @property
    def unlimited(self) -> bool:
        """Whether no expert has a capacity."""
        return self.factor == 0.0 and self.zero == "unlimited"

    def exact(self, num_tokens: int, top_k: int) -> Fraction:
        """Return the capacity before it is rounded."""
        shares = {"routes": num_tokens * top_k, "tokens": num_tokens}
        if self.share == "one":
            return Fraction(self.factor)
        return Fraction(self.factor) * shares[self.share] / self.num_experts

    def of(self, exact: Fraction, num_tokens: int) -> int:
        """Return the capacity that is ``exact`` before it is rounded; at most T."""
        if self.unlimited:
            return num_tokens
        rounded = math.ceil(exact) if self.rounding == "up" else math.floor(exact)
        return min(max(rounded, self.minimum), num_tokens)

    def capacity(self, num_tokens: int, top_k: int) -> int:
        """Return the routes that an expert takes at the most: never above T, one a token."""
        return self.of(self.exact(num_tokens, top_k), num_tokens)

    def check(self, routes: Routes) -> None:
        """Raise ``ValueError`` for routes that a capacity says nothing about."""
        routes.check_below(self.num_experts)
        if has_repeats(routes):
            raise ValueError(
                "Cannot have an expert in several slots of a token: a capacity counts tokens"
            )
        present = routes.expert_ids != ABSENT
        if (routes.weights[present] <= 0).any():
            t, k = (int(i) for i in np.argwhere(present & (routes.weights <= 0))[0])
            raise ValueError(
                f"Cannot have weights[{t}, {k}]={routes.weights[t, k].item()}: "
                "a route that a capacity may drop weighs more than 0"
            )
        if self.order == "slot":
            _check_falling(routes.weights.astype(np.float64), present)


def drop(config: CapacityConfig, routes: Routes) -> Routing:
    """Return the routes with -1 and a weight of 0 where an expert had no room; weights float64.

    Ties of weights go to the lowest token. Errors: ``ValueError``, as ``config.check``.
    """
    config.check(routes)
    kept = kept_routes(config, routes)
    before = np.where(routes.expert_ids == ABSENT, 0.0, routes.weights.astype(np.float64))
    return Routing(
        weights=_surviving(config, before, np.where(kept, before, 0.0)),
        expert_ids=np.where(kept, routes.expert_ids, ABSENT),
    )


def kept_routes(config: CapacityConfig, routes: Routes) -> Bools:
    """Return which routes are kept, ``[T, K]``."""
    room = config.capacity(routes.num_tokens, routes.top_k)
    ids = routes.experts
    order = np.lexsort((priority(config.order, routes).reshape(-1), ids))
    order = order[ids[order] != ABSENT]
    sorted_ids = ids[order]
    place = np.arange(order.size) - np.searchsorted(sorted_ids, sorted_ids)
    kept = np.zeros(ids.size, dtype=bool)
    kept[order[place < room]] = True
    return kept.reshape(routes.expert_ids.shape)


def priority(order: DropOrder, routes: Routes) -> Floats:
    """Return what routes are kept by, ``[T, K]``, the least first; ties are free."""
    tokens, top_k = np.indices(routes.expert_ids.shape)
    if order == "weight":
        return np.negative(routes.weights.astype(np.float64))
    place = np.add(tokens, top_k * (routes.num_tokens if order == "slot" else 0))
    return np.asarray(place, np.float64)


def _surviving(config: CapacityConfig, before: Floats, after: Floats) -> Floats:
    if config.survivors in ("kept", "free"):
        return after
    left = after.sum(axis=1, keepdims=True)
    whole = before.sum(axis=1, keepdims=True) if config.survivors == "rescaled" else 1.0
    return after * (whole / np.where(left > 0, left, 1.0))


def _check_falling(weights: Floats, present: Bools) -> None:
    before = np.minimum.accumulate(np.where(present, weights, np.inf), axis=1)
    rises = present[:, 1:] & (weights[:, 1:] >= before[:, :-1])
    if rises.any():
        t, k = (int(i) for i in np.argwhere(rises)[0])
        raise ValueError(
            f"Cannot have weights[{t}, {k + 1}]={weights[t, k + 1]} after {before[t, k]} with "
            "order='slot': slots are in the order of choice, and their weights fall"
        )
