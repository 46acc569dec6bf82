"""Events of shards: placements, loads of ranks, absent routes, and no token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from moe_routing.conformance.calls.shards import ShardsCase
from moe_routing.conformance.events.experts import cases
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.shards import sharded
from moe_routing.conformance.judge.shards import Sharded
from moe_routing.implementations import Capabilities
from moe_routing.reference import Placement

Occurs = Callable[[Sharded], bool]

MIXED = ((0, 3), (3, 1), (2, 0), (1, 2), (0, 1))
"""Five tokens of two slots, for four experts; no two slots alike."""

EVEN, UNEVEN = (0, 0, 1, 1), (0, 0, 0, 1)
"""The ranks of four experts in order: two each, or all but one."""


def spread(
    slug: str,
    statement: str,
    occurs: Occurs,
    ranks: Sequence[int] = EVEN,
    *,
    ids: Any = MIXED,
    logical: Sequence[int] | None = None,
    number: int = 2,
    **parts: Any,
) -> None:
    """Register an event that calls with experts in these places show, whatever they compute."""
    placement = Placement(
        rank_of=np.array(ranks),
        logical_of=np.arange(len(ranks)) if logical is None else np.array(logical),
        num_ranks=number,
    )

    @event(f"spread-{slug}", statement, lambda each: isinstance(each, Sharded) and occurs(each))
    def _(capabilities: Capabilities) -> Iterator[ShardsCase]:
        if capabilities.shards.refusals(placement):
            return
        count = placement.num_experts
        routes = np.array(ids, np.int64).reshape(len(ids), -1 if len(ids) else 2)
        for case in cases(capabilities, routes, count, **parts):
            yield sharded(case, placement)


def _busy(each: Sharded) -> bool:
    return bool((each.counts > 0).sum() > 1)


def _replicated(each: Sharded) -> bool:
    """Return whether a token goes to an expert on several ranks, and would show it twice."""
    ids = each.inputs.expert_ids
    several = (ids >= 0) & (each.placement.replicas[ids] > 1) & (each.inputs.weights != 0.0)
    return bool(several.any())


spread("several", "tokens whose experts are on several ranks", lambda each: _across(each))
spread(
    "uneven",
    "more experts on one rank than on another",
    lambda each: _busy(each) and bool(np.ptp(_sizes(each)) > 0),
    UNEVEN,
)
spread(
    "moved",
    "an expert whose place in its rank is not that among all",
    lambda each: each.placement.num_ranks > 1 and each.moved and _busy(each),
    (1, 0, 1, 0),
)
spread(
    "replicas",
    "an expert on several ranks, with several tokens",
    lambda each: _replicated(each) and each.inputs.num_tokens > 1,
    (0, 0, 1, 1, 1, 0),
    logical=(0, 1, 2, 3, 0, 3),
)
spread(
    "one-rank",
    "all experts on one rank",
    lambda each: each.placement.num_ranks == 1 and bool(each.counts.any()),
    (0, 0, 0, 0),
    number=1,
)
spread(
    "skewed",
    "all routes to the experts of one rank, of which there are several",
    lambda each: bool(
        (each.counts > 0).sum() == 1
        and each.placement.num_ranks > 1
        and np.unique(each.inputs.expert_ids).size > 1
    ),
    ids=((0, 1), (1, 0), (0, 1)),
)
spread(
    "idle-rank",
    "a rank that has experts, and no route to any",
    lambda each: bool(((each.counts == 0) & (_sizes(each) > 0)).any()) and bool(each.counts.any()),
    ids=((3, 2), (2, 3)),
)
spread(
    "rank-without-experts",
    "a rank that has no expert",
    lambda each: bool((_sizes(each) == 0).any()) and bool(each.counts.any()),
    (0, 0, 2, 2),
    number=3,
)
spread(
    "lone-expert",
    "a rank of one expert, with tokens elsewhere",
    lambda each: bool((_sizes(each) == 1).any()) and _across(each),
    (0, 1, 2, 3),
    number=4,
)
spread(
    "absent",
    "absent routes next to those of several ranks",
    lambda each: _busy(each) and bool((each.inputs.expert_ids < 0).any()),
    ids=((0, -1), (3, 1), (-1, -1), (-1, 2)),
)
spread(
    "zero-weight",
    "a weight of 0",
    lambda each: bool(((each.inputs.expert_ids >= 0) & (each.inputs.weights == 0.0)).any()),
    weights="zeros",
)
spread(
    "biases",
    "biases, which one rank adds",
    lambda each: each.inputs.has_biases and _busy(each),
    biased=(True,),
)
spread("no-token", "no token", lambda each: each.inputs.num_tokens == 0, ids=())
spread(
    "last-rank",
    "the remainder of experts on the last rank, with tokens",
    lambda each: bool(_sizes(each)[-1] > _sizes(each)[0] and each.counts[-1] > 0),
    (0, 1, 1, 1),
)
spread(
    "exact",
    "a sum over several ranks that no order of operations rounds",
    lambda each: bool((each.layer.exact & (each.sum.mid != 0.0)).any()) and _across(each),
    activations=("relu",),
    values=("exact",),
    sizes=(8, 8),
)

FAMILIES["spread-large"] = "more tokens, experts, ranks or places of an expert than are drawn"
spread(
    "large:260-tokens",
    "260 tokens whose experts are on several ranks",
    lambda each: each.inputs.num_tokens == 260 and _across(each),
    ids=np.resize(np.array(MIXED), (260, 2)),
)
spread(
    "large:32-experts",
    "32 experts on two ranks, and tokens of each",
    lambda each: each.config.num_experts == 32 and bool((each.layer.counts > 0).all()),
    (0,) * 16 + (1,) * 16,
    ids=np.arange(32).reshape(2, 16).T,
)
spread(
    "large:12-ranks",
    "twelve ranks, with tokens of each",
    lambda each: each.placement.num_ranks == 12 and bool((each.counts > 0).all()),
    range(12),
    ids=np.arange(12).reshape(6, 2),
    number=12,
)
spread(
    "large:3-places",
    "an expert on three ranks, with several tokens",
    lambda each: bool((each.placement.replicas == 3).any()) and _replicated(each),
    (0, 0, 1, 1, 1, 2),
    logical=(0, 1, 2, 3, 0, 0),
    number=3,
)
spread(
    "large:130-columns",
    "hidden states of 130 columns whose experts are on several ranks",
    lambda each: each.inputs.hidden_size >= 130 and _across(each),
    biased=(True, False),
    sizes=(130, 4),
)
spread(
    "large:300-experts",
    "300 experts on two ranks, and routes to the last of each",
    lambda each: each.config.num_experts == 300 and bool((each.layer.counts[[149, 299]] > 0).all()),
    (0,) * 150 + (1,) * 150,
    ids=((149, 299), (298, 0), (148, 257)),
)
spread(
    "large:20-ranks",
    "twenty ranks, with tokens of each",
    lambda each: each.placement.num_ranks == 20 and bool((each.counts > 0).all()),
    range(20),
    ids=np.arange(20).reshape(10, 2),
    number=20,
)
spread(
    "large:1030-tokens",
    "1,030 tokens whose experts are on several ranks",
    lambda each: each.inputs.num_tokens == 1030 and _across(each),
    ids=np.resize(np.array(MIXED), (1030, 2)),
    sizes=(2, 2),
)


def _sizes(each: Sharded) -> Any:
    return np.bincount(each.placement.rank_of, minlength=each.placement.num_ranks)


def _across(each: Sharded) -> bool:
    """Return whether a token has experts on two ranks, each with one place."""
    ids = each.inputs.expert_ids
    if not ids.size:
        return False
    rank_of = np.full(each.config.num_experts + 1, -1)
    rank_of[each.placement.logical_of] = each.placement.rank_of
    ranks = np.where(each.settled, rank_of[ids], -1)
    there = ranks >= 0
    low = np.where(there, ranks, each.placement.num_ranks).min(axis=1)
    return bool((there.any(axis=1) & (ranks.max(axis=1) > low)).any())
