"""Sizes: where a failure may begin, and how a case is cut down to a smaller one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.construct import take_tokens, with_inputs
from moe_routing.conformance.generators.reductions import columns, with_experts
from moe_routing.reference import stages
from moe_routing.reference.formats import Ids


@dataclass(frozen=True, kw_only=True)
class Size:
    """One size of a case, by the letter or the name that messages have for it.

    ``count`` returns it; up to ``usual`` it says nothing about a failure. ``keep`` returns the
    case with only these of it. Errors: ``ValueError`` where there is no such case.
    """

    name: str
    count: Callable[[Any], int]
    usual: int
    keep: Callable[[Any, Ids], Any]


def _experts(case: Case, kept: Ids) -> Case:
    return with_experts(case, kept)


def _slots(case: Case, kept: Ids) -> Case:
    """Keep the first slots, or drop the experts of other slots of the first token with them."""
    top_k, config = len(kept), case.config
    if case.inputs.expert_table is not None:
        raise ValueError("the slots are the table's")
    if (kept == np.arange(top_k)).all() or not case.inputs.num_tokens:
        return replace(case, config=replace(config, top_k=top_k))
    if config.groups is not None:
        raise ValueError("groups are of equal size")
    chosen = stages(config, case.inputs).expert_ids[0]
    lost = np.delete(chosen, kept)
    return with_experts(case, np.delete(np.arange(config.num_experts), lost), top_k=top_k)


def _groups(case: Case, kept: Ids) -> Case:
    groups = case.config.groups
    assert groups is not None
    grid = np.arange(case.config.num_experts).reshape(groups.count, -1)
    fewer = replace(groups, count=len(kept), kept=min(groups.kept, len(kept)))
    slots = case.config.top_k // groups.count * len(kept)
    shares = {"top_k": slots} if groups.from_each else {}  # every group gives as many as before
    return with_experts(case, grid[kept].ravel(), groups=fewer, **shares)


def _of_groups(case: Case, kept: Ids) -> Case:
    assert case.config.groups is not None
    grid = np.arange(case.config.num_experts).reshape(case.config.groups.count, -1)
    return with_experts(case, grid[:, kept].ravel())


def _hidden(case: Case, kept: Ids) -> Case:
    return with_inputs(case, **columns(case, kept))


def _alone(case: Case) -> int:
    return case.config.num_experts if case.config.groups is None else 0


def _count(case: Case) -> int:
    return 0 if case.config.groups is None else case.config.groups.count


def _width(case: Case) -> int:
    return 0 if case.config.groups is None else case.config.experts_per_group


def _height(case: Case) -> int:
    """Return H where the experts do not fix it, as an identity gate does, or given logits."""
    inputs = case.inputs
    fixed = inputs.logits is not None or inputs.hidden_size == inputs.num_experts
    return 0 if fixed else inputs.hidden_size


ROUTING_SIZES = (
    Size(name="T", count=lambda case: case.inputs.num_tokens, usual=4, keep=take_tokens),
    Size(name="E", count=_alone, usual=8, keep=_experts),
    Size(name="groups.count", count=_count, usual=4, keep=_groups),
    Size(name="experts_per_group", count=_width, usual=4, keep=_of_groups),
    Size(name="K", count=lambda case: case.config.top_k, usual=4, keep=_slots),
    Size(name="H", count=_height, usual=64, keep=_hidden),
)
"""The sizes of a routing case. A rounding may need many terms, so H counts for long rows only."""

SHARED_SIZES = (
    Size(
        name="T",
        count=lambda case: len(case.inputs.hidden),
        usual=4,
        keep=lambda case, kept: with_inputs(case, hidden=case.inputs.hidden[kept]),
    ),
)
"""The sizes of a shared-expert case."""
