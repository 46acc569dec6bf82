"""Calls of ranks: calls of shards whose tokens are spread over the ranks, made from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.calls.ranks import (
    EVERY,
    RankGradientCase,
    RanksCase,
    at_home,
    with_cotangent,
)
from moe_routing.conformance.calls.shards import ShardsCase
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.expert_gradients import EXPERT_GRADIENT_REDUCTIONS
from moe_routing.conformance.generators.experts import Wishes
from moe_routing.conformance.generators.experts_smaller import (
    EXPERTS_SIZES,
    fewer,
    keep,
    plainer,
    without_biases,
)
from moe_routing.conformance.generators.gradients import COTANGENTS
from moe_routing.conformance.generators.reducer import Reduction, attempt, subsets
from moe_routing.conformance.generators.shards import choose_shards_case
from moe_routing.conformance.generators.shards_smaller import (
    SHARDS_SIZES,
    fewer_placed,
    keep_ranks,
    plain_places,
)
from moe_routing.conformance.generators.sizes import Size
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import INPUT_FORMATS, Ids

SPREADS = ("even", "uneven", "idle", "one")
"""How tokens are spread: as many on each rank, any number, none on some, or all on one."""

_COTANGENTS = ("quarters", "quarters", "large", "small")


def choose_ranks_case(
    choose: Choose, capabilities: Capabilities, wishes: Wishes | None = None
) -> RanksCase:
    """Return a case that ``capabilities`` claim, made by choices."""
    wishes = wishes or Wishes()
    case = choose_shards_case(choose, capabilities, wishes)
    rng = np.random.default_rng(choose("homes", range(2**16)))
    claimed = capabilities.shards.batches
    if claimed == "shared":
        return at_home(case, np.full(case.num_tokens, EVERY))
    wanted = wishes.offers.get("spread", SPREADS)
    return spread_out(rng, case, choose("spread", wanted) if claimed == "any" else "even")


def spread_out(rng: np.random.Generator, case: ShardsCase, kind: str) -> RanksCase:
    """Return the call with its tokens on ranks; for ``even`` the first come once more."""
    ranks, tokens = case.inputs.num_ranks, case.num_tokens
    if kind == "even":
        each = -(-tokens // ranks)
        enough = np.resize(np.arange(tokens), each * ranks)
        return at_home(keep(case, "tokens", enough), np.repeat(np.arange(ranks), each))
    homes = rng.integers(0, ranks, tokens)
    if kind == "idle":
        busy = rng.permutation(ranks)[: max(1, ranks - 1 - int(rng.integers(0, ranks)))]
        homes = busy[rng.integers(0, busy.size, tokens)]
    if kind == "one":
        homes = np.full(tokens, rng.integers(0, ranks))
    return at_home(case, np.sort(homes))


def choose_rank_gradient_case(
    choose: Choose, capabilities: Capabilities, wishes: Wishes | None = None
) -> RankGradientCase:
    """Return a call of ranks with a cotangent, made by choices."""
    case = choose_ranks_case(choose, capabilities, wishes)
    rng = np.random.default_rng(choose("seed", range(2**16)))
    drawn = COTANGENTS[choose("cotangent", _COTANGENTS)](rng, case.inputs.hidden.shape)
    rounded = INPUT_FORMATS[case.dtype].round(drawn).astype(np.float32)
    return with_cotangent(case, rounded)


# Smaller cases.


def keep_ranks_at_home(case: RanksCase, kept: Ids) -> RanksCase:
    """Return the case with these ranks; the last of them takes what the others had alone."""
    number = np.full(case.inputs.num_ranks, len(kept) - 1)
    number[kept] = np.arange(len(kept))
    home = case.inputs.home
    moved = np.where(home == EVERY, EVERY, number[home])
    first = replace(case, inputs=with_changes(case.inputs, home=np.zeros_like(home)))
    merged = keep_ranks(first, kept)
    return replace(merged, inputs=with_changes(merged.inputs, home=moved))


def _ranks(case: RanksCase) -> Iterator[RanksCase]:
    for kept in subsets(case.inputs.num_ranks):
        yield from attempt(keep_ranks_at_home, case, kept)


RANKS_REDUCTIONS: tuple[Reduction, ...] = (
    fewer("hidden"),
    fewer("width"),
    fewer("tokens"),
    fewer("slots"),
    _ranks,
    plain_places,
    fewer_placed,
    without_biases,
    plainer,
)
"""The reductions of a case of ranks, in the order in which they are tried."""

RANK_GRADIENT_REDUCTIONS = (*EXPERT_GRADIENT_REDUCTIONS, *RANKS_REDUCTIONS)
"""Those of a case of ranks' gradients: the cotangent's come first."""

RANKS_SIZES = (
    *(size for size in EXPERTS_SIZES if size.name != "E"),
    *(size for size in SHARDS_SIZES if size.name == "E"),
    Size(name="R", count=lambda case: case.inputs.num_ranks, usual=2, keep=keep_ranks_at_home),
)
"""The sizes of a case of ranks that a failure may begin at."""
