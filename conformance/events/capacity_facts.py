"""What a capacity shows: which experts overflow, and which tokens lose routes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.judge.capacity import Demand
from moe_routing.reference.capacity import kept_routes
from moe_routing.reference.formats import Bools, Ids


def over(demand: Demand) -> Bools:
    """Return which experts have more routes than they take, however a capacity is rounded."""
    over: Bools = demand.counts > demand.room[1]
    return over


def some_over(demand: Demand) -> bool:
    """Return whether some expert has more routes than it takes."""
    return bool(over(demand).any())


def keeps_others(demand: Demand, **changes: Any) -> bool:
    """Whether the reference keeps other routes, or as many others, under a changed rule."""
    config = replace(demand.config, **changes)
    return not np.array_equal(kept_routes(config, demand.routes), demand.kept)


def firsts(demand: Demand) -> Ids:
    """Return how many first slots each expert has."""
    firsts = demand.present.copy()
    firsts[:, 1:] = False
    return demand.counted(firsts)


def lost(demand: Demand) -> Bools:
    """Return which present routes have no room."""
    lost: Bools = demand.present & ~demand.kept
    return lost


def partly(demand: Demand) -> Bools:
    """Return which tokens lose some of their routes and keep others, ``[T]``."""
    return np.asarray(lost(demand).any(axis=1) & demand.kept.any(axis=1))


def parted(demand: Demand) -> bool:
    """Return whether the order decides that a token loses some of its routes and keeps others."""
    return demand.config.order != "free" and bool(partly(demand).any())


def is_zero(demand: Demand, convention: str) -> bool:
    """Return whether the factor is 0, by this convention, and there are routes."""
    config = demand.config
    return config.factor == 0.0 and config.zero == convention and bool(demand.present.any())
