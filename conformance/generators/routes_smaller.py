"""Smaller calls that are given routes: fewer tokens, slots and experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routes import RoutesCase
from moe_routing.conformance.generators.reducer import Reduction, attempt, subsets
from moe_routing.conformance.generators.sizes import Size
from moe_routing.reference import Routes
from moe_routing.reference.formats import Ids
from moe_routing.reference.routes import ABSENT

CaseT = TypeVar("CaseT", bound=RoutesCase)


def routed(case: CaseT, ids: Ids, weights: npt.NDArray[np.float32]) -> CaseT:
    """Return the case with other routes."""
    return replace(case, inputs=Routes(expert_ids=ids, weights=weights))


def keep_tokens(case: CaseT, kept: Ids) -> CaseT:
    """Return the case with these tokens alone."""
    return routed(case, case.inputs.expert_ids[kept], case.inputs.weights[kept])


def keep_slots(case: CaseT, kept: Ids) -> CaseT:
    """Return the case with these slots of every token alone. Errors: ``ValueError`` for none."""
    return routed(case, case.inputs.expert_ids[:, kept], case.inputs.weights[:, kept])


def keep_experts(case: CaseT, kept: Ids) -> CaseT:
    """Return the case with these experts, and the tokens that go to no other."""
    number = np.full(case.config.num_experts + 1, ABSENT)
    number[kept] = np.arange(len(kept))
    ids = case.inputs.expert_ids
    stays = ((ids == ABSENT) | np.isin(ids, kept)).all(axis=1)
    config = replace(case.config, num_experts=len(kept))
    return replace(routed(case, number[ids[stays]], case.inputs.weights[stays]), config=config)


def _tokens(case: CaseT) -> Iterator[CaseT]:
    for kept in subsets(case.num_tokens):
        yield keep_tokens(case, kept)


def _slots(case: CaseT) -> Iterator[CaseT]:
    for kept in subsets(case.inputs.top_k):
        yield from attempt(keep_slots, case, kept)


def _experts(case: CaseT) -> Iterator[CaseT]:
    used = np.unique(case.inputs.expert_ids)
    used = used[used != ABSENT]
    if 0 < used.size < case.config.num_experts:
        yield keep_experts(case, used)
    for kept in subsets(case.config.num_experts):
        yield from attempt(keep_experts, case, kept)


ROUTES_REDUCTIONS: tuple[Reduction, ...] = (_tokens, _slots, _experts)
"""The reductions of any call that is given routes, in the order in which they are tried."""

ROUTES_SIZES = (
    Size(name="T", count=lambda case: case.num_tokens, usual=4, keep=keep_tokens),
    Size(name="E", count=lambda case: case.config.num_experts, usual=4, keep=keep_experts),
    Size(name="K", count=lambda case: case.inputs.top_k, usual=2, keep=keep_slots),
)
"""The sizes of such a call."""
