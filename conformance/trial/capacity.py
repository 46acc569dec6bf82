"""The trial of drops, and the boundary that they come through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from moe_routing.conformance.calls.capacity import CapacityCase
from moe_routing.conformance.judge.capacity import Demand, Dropped
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed, to_numpy
from moe_routing.implementations import RoutingMap
from moe_routing.reference import Routes, Routing
from moe_routing.reference.routes import ABSENT

_SHAPES = {"weights": "TK", "expert_ids": "TK", "probs": "TE", "routing_map": "TE"}
_KINDS = {"f": "floating point", "iu": "integers", "b": "bool"}


@dataclass(frozen=True, eq=False)
class CapacityTrial(BaseTrial[CapacityCase]):
    """One call of ``drop`` for one adapter."""

    method: str = "drop"

    @property
    def demand(self) -> Demand:
        """What follows from the routes."""
        return self.once(demand_of)

    @property
    def facts(self) -> Demand:
        """The value that events are read from."""
        return self.demand

    @property
    def layout(self) -> str:
        """The name of the layout of the answer. Errors: ``Raised``."""
        return type(self.native).__name__

    @cached_property
    def received(self) -> Dropped:
        """The answer, read. Errors: ``Raised``, ``Malformed``."""
        return read(self.native, self.case)


def demand_of(case: CapacityCase) -> Demand:
    """Return what follows from the routes of a case."""
    return Demand(case.config, case.inputs)


def read(raw: object, case: CapacityCase) -> Dropped:
    """Read a native answer. Errors: ``Malformed``, in one line."""
    if isinstance(raw, Routing):
        weights = _array("weights", raw.weights, "f", case)
        ids = _array("expert_ids", raw.expert_ids, "iu", case).astype(np.int64)
        return _of_slots(case.inputs, weights.astype(np.float64), ids)
    if isinstance(raw, RoutingMap):
        probs = _array("probs", raw.probs, "f", case).astype(np.float64)
        return _of_map(case.inputs, probs, _array("routing_map", raw.routing_map, "b", case))
    kind = "None" if raw is None else f"a {type(raw).__name__}"
    raise Malformed(f"drop returned {kind}, but should return Routing or RoutingMap")


def _array(name: str, value: Any, kinds: str, case: CapacityCase) -> Any:
    if value is None:
        raise Malformed(f"{name} is None, but should be an array")
    array, shape = to_numpy(name, value), tuple(case.sizes[letter] for letter in _SHAPES[name])
    if array.dtype.kind not in kinds:
        raise Malformed(f"{name} is of dtype {array.dtype}, but should be {_KINDS[kinds]}")
    if array.shape != shape:
        raise Malformed(f"{name} has shape {array.shape}, but should be {shape}")
    return array


def _of_slots(routes: Routes, weights: Any, ids: Any) -> Dropped:
    """Read slots, in any order: a token and an expert name a route."""
    stays = ids != ABSENT
    same = stays[:, None, :] & (routes.expert_ids[:, :, None] == ids[:, None, :])
    same &= (routes.expert_ids != ABSENT)[:, :, None]
    kept, first = same.any(axis=2), same.argmax(axis=2)
    named = same.any(axis=1)
    others = [(int(t), int(ids[t, k])) for t, k in np.argwhere(stays & ~named)]
    others += [(int(t), int(routes.expert_ids[t, k])) for t, k in np.argwhere(same.sum(axis=2) > 1)]
    found = np.take_along_axis(weights, first, axis=1)
    lost = np.where(stays, 0.0, np.abs(weights)).max(axis=1, initial=0.0)
    return Dropped(
        kept=kept, weights=np.where(kept, found, 0.0), lost=lost, others=tuple(sorted(others))
    )


def _of_map(routes: Routes, probs: Any, routing_map: Any) -> Dropped:
    """Read a map of tokens and experts."""
    there = routes.expert_ids != ABSENT
    rows, ids = np.arange(routes.num_tokens)[:, None], np.maximum(routes.expert_ids, 0)
    called = np.zeros(routing_map.shape, dtype=bool)
    np.logical_or.at(called, (np.broadcast_to(rows, ids.shape)[there], ids[there]), True)
    kept = there & routing_map[rows, ids]
    return Dropped(
        kept=kept,
        weights=np.where(kept, probs[rows, ids], 0.0),
        lost=np.where(routing_map, 0.0, np.abs(probs)).max(axis=1, initial=0.0),
        others=tuple((int(t), int(e)) for t, e in np.argwhere(routing_map & ~called)),
    )
