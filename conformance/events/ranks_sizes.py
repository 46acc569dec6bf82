"""Events of ranks: more columns, tokens and experts of each than are drawn."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.events.rank_layouts import Layout, plain
from moe_routing.conformance.events.ranks import away, ranked
from moe_routing.conformance.events.registry import FAMILIES
from moe_routing.conformance.judge.ranks import Together

_TOKENS, _EXPERTS = 300, 70


def _many_tokens(ranks: int) -> Layout:
    """Return the plain layout with 300 tokens a rank."""
    few = plain(ranks)
    each = np.arange(_TOKENS) % 2
    rows = (2 * np.arange(ranks)[:, None] + each).reshape(-1)
    return Layout(rank_of=few.rank_of, ids=few.ids[rows], home=few.home[rows])


def _many_experts(ranks: int) -> Layout:
    """Return 70 experts a rank, and tokens of the last of their own rank and of another."""
    last = _EXPERTS * (np.arange(ranks) + 1) - 1
    ids = np.stack([last, np.roll(last, -1) - (ranks == 1)], axis=1)
    return Layout(rank_of=np.repeat(np.arange(ranks), _EXPERTS), ids=ids, home=np.arange(ranks))


def _wide(each: Together) -> bool:
    return each.inputs.hidden_size >= 130 and away(each)


FAMILIES["ranked-large"] = "more columns, tokens or experts of a rank than are drawn"
ranked(
    "large:130-columns",
    "hidden states of 130 columns, which go to other ranks",
    _wide,
    least=2,
    biased=(True, False),
    sizes=(130, 4),
)
ranked(
    "large:300-tokens",
    "300 tokens on a rank, some of which go to another",
    lambda each: (
        away(each) and bool((each.batches == _TOKENS).all() or each.inputs.num_tokens >= 600)
    ),
    _many_tokens,
    least=2,
    sizes=(2, 2),
)
ranked(
    "large:70-experts",
    "70 experts on each rank, with routes to the last of them",
    lambda each: each.config.num_experts == _EXPERTS * each.placement.num_ranks and away(each),
    _many_experts,
    least=2,
    sizes=(2, 2),
)
ranked(
    "large:learned-130-columns",
    "gradients of 130 columns, which come back from other ranks",
    _wide,
    least=2,
    learned=True,
    sizes=(130, 4),
)
