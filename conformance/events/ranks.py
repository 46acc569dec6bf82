"""Events of ranks: where tokens are and where their experts, idle ranks, and gradients over all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moe_routing.conformance.calls.ranks import (
    EVERY,
    RankGradientCase,
    RanksCase,
    at_home,
    with_cotangent,
)
from moe_routing.conformance.events.experts import cases
from moe_routing.conformance.events.rank_layouts import (
    Layout,
    Lays,
    all_but,
    growing,
    plain,
    replicated,
    scattered,
    to_the_last,
    with_a_remainder,
    with_absent,
    without_tokens,
)
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.generators.expert_gradients import plain_cotangent
from moe_routing.conformance.generators.shards import sharded
from moe_routing.conformance.judge.ranks import Together
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Ids

Occurs = Callable[[Together], bool]


def ranked(
    slug: str,
    statement: str,
    occurs: Occurs,
    lays: Lays = plain,
    *,
    least: int = 1,
    learned: bool = False,
    **parts: Any,
) -> None:
    """Register an event that a call of all ranks shows, of ``least`` ranks or more."""

    def seen(each: Any) -> bool:
        there = isinstance(each, Together) and (each.cotangent is not None or not learned)
        return there and occurs(each)

    @event(f"ranked-{slug}", statement, seen)
    def _(capabilities: Capabilities) -> Iterator[RanksCase]:
        ranks = capabilities.shards.num_ranks or min(2, capabilities.shards.max_ranks or 2)
        if ranks < least:
            return
        for case in _laid(capabilities, lays(ranks), ranks, parts):
            yield _learned(case) if learned else case


def _laid(
    capabilities: Capabilities, lay: Layout, ranks: int, parts: dict[str, Any]
) -> Iterator[RanksCase]:
    shards, placement = capabilities.shards, lay.placement(ranks)
    if shards.refusals(placement):
        return
    shared = shards.batches == "shared"
    home = np.full(len(lay.home), EVERY) if shared else np.asarray(lay.home, np.int64)
    sizes = np.bincount(home[home >= 0], minlength=ranks).tolist()
    if shards.batch_refusals(sizes, shared=shared) and len(home):
        return
    ids = np.array(lay.ids, np.int64).reshape(len(lay.home), 2)
    for case in cases(capabilities, ids, placement.num_experts, **parts):
        yield at_home(sharded(case, placement), home)


def _learned(case: RanksCase) -> RankGradientCase:
    inputs = case.inputs
    return with_cotangent(case, plain_cotangent(inputs.num_tokens, inputs.hidden_size))


# What is seen.


def away(each: Together) -> bool:
    """Return whether a token has a route to another rank, and one to its own or a third."""
    ids = each.inputs.expert_ids
    if not ids.size or each.placement.num_ranks == 1:
        return False
    busy = sum(bool(each.may_compute(rank).any()) for rank in each.ranks)
    if each.shared:
        return busy > 1
    elsewhere = [each.settled & each.may_compute(r) & ~each.own(r)[:, None] for r in each.ranks]
    return busy > 1 and bool(np.any(elsewhere))


def _uneven(each: Together) -> bool:
    return bool(np.ptp(each.batches) > 0) and bool((each.batches > 0).sum() > 1)


def _idle(each: Together, rank: int) -> bool:
    """Return whether a rank has no token, and experts that have some."""
    return bool(each.batches[rank] == 0 and each.counts[rank] > 0)


def _skewed(each: Together) -> bool:
    homes = each.shared or (each.batches > 0).sum() > 1
    one = (each.counts > 0).sum() == 1 and each.placement.num_ranks > 1
    return bool(homes and one and np.unique(each.inputs.expert_ids).size > 1)


def _sizes(each: Together) -> Ids:
    return np.bincount(each.placement.rank_of, minlength=each.placement.num_ranks)


def _from_several(each: Together) -> bool:
    """Return whether an expert has tokens of several ranks."""
    if each.shared:
        return away(each)
    ids, experts = each.inputs.expert_ids, range(each.config.num_experts)
    homes = (each.home[(ids == expert).any(axis=1)] for expert in experts)
    return any(np.unique(home).size > 1 for home in homes)


def _twice(each: Together) -> bool:
    ids = each.inputs.expert_ids
    several = (ids >= 0) & (each.placement.replicas[ids] > 1) & (each.inputs.weights != 0.0)
    return bool(several.any()) and each.inputs.num_tokens > 1


ranked("several", "tokens whose experts are on other ranks", away, least=2)
ranked("uneven", "ranks with tokens, some with more than others", _uneven, growing, least=2)
ranked(
    "last-idle",
    "a last rank without tokens, to whose experts others send some",
    lambda each: _idle(each, -1),
    all_but(-1),
    least=2,
)
ranked(
    "first-idle",
    "a first rank without tokens, to whose experts others send some",
    lambda each: _idle(each, 0),
    all_but(0),
    least=2,
)
ranked("skewed", "the routes of several ranks all to one", _skewed, to_the_last, least=2)
ranked(
    "moved",
    "an expert whose place in its rank is not that among all, and tokens elsewhere",
    lambda each: each.placement.num_ranks > 1 and each.moved and away(each),
    scattered,
    least=2,
)
ranked("replicas", "an expert on several ranks, with several tokens", _twice, replicated, least=2)
ranked(
    "remainder",
    "the remainder of experts on the last rank, with tokens of others",
    lambda each: bool(_sizes(each)[-1] > _sizes(each)[0] and each.counts[-1] > 0) and away(each),
    with_a_remainder,
    least=2,
)
ranked(
    "absent",
    "absent routes next to those that go to other ranks",
    lambda each: away(each) and bool((each.inputs.expert_ids < 0).any()),
    with_absent,
    least=2,
)
ranked(
    "exact",
    "a sum over several ranks that no order of operations rounds",
    lambda each: away(each) and bool((each.layer.exact & (each.sum.mid != 0.0)).any()),
    activations=("relu",),
    values=("exact",),
    sizes=(8, 8),
    least=2,
)
ranked("no-token", "no token on any rank", lambda each: each.inputs.num_tokens == 0, without_tokens)
ranked(
    "learned-several",
    "gradients of an expert with tokens of several ranks",
    _from_several,
    to_the_last,
    least=2,
    learned=True,
)
ranked(
    "learned-away",
    "gradients of tokens whose experts are on other ranks",
    away,
    least=2,
    learned=True,
)
ranked(
    "learned-idle",
    "gradients where a rank has no token, and experts that have some",
    lambda each: any(_idle(each, rank) for rank in each.ranks),
    all_but(-1),
    least=2,
    learned=True,
)
ranked(
    "learned-unchosen",
    "gradients where no token goes to a rank that has experts",
    lambda each: bool(((each.counts == 0) & (_sizes(each) > 0)).any() and each.counts.any()),
    to_the_last,
    least=2,
    learned=True,
)
ranked(
    "learned-replicas",
    "gradients of an expert on several ranks",
    _twice,
    replicated,
    least=2,
    learned=True,
)
