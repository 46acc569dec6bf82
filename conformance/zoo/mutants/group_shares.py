"""Mutants of groups that each give a share of the K experts.

LMDeploy shipped two of them; the others did the same to groups, or to a norm, of other routers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.zoo.residents import WHOLE, mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import at_ids, best_of, config, gathered
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Claim, GroupRule
from moe_routing.reference import RouterConfig
from moe_routing.reference.selection import top_k

_LMDEPLOY = "InternLM/lmdeploy 0.18.0, moe_router"
SHARED = replace(
    WHOLE,
    claims=(
        Claim(
            score=("softmax", "sigmoid"),
            groups=(GroupRule(from_each=(True,)),),
            expert_table=(False,),
        ),
    ),
)
"""What a router with ``router_n_groups`` claims."""


@mutant("share-weighs-by-biased-scores", "M01", "gathered", real=_LMDEPLOY, claims=SHARED)
def _(w: Work) -> Array:
    """The top-k of each group returned its biased scores, and those became the weights."""
    return at_ids(w, w.biased) if w.config.weights_from == "scores" else gathered(w)


@mutant("share-taken-of-all", "M25", "expert_ids", real="ggml-org/llama.cpp#16691", claims=SHARED)
def _(w: Work) -> Array:
    """The number of groups was read, and the K best of all experts were taken."""
    return top_k(w.competing, w.config.top_k)


@mutant(
    "share-without-offsets", "M25", "expert_ids", real="Dao-AILab/sonic-moe@c6ba863", claims=SHARED
)
def _(w: Work) -> Array:
    """Ids within a group were not moved to the group: later groups gave those of the first."""
    return best_of(w, top_k) % w.experts_per_group


@mutant(
    "share-of-interleaved-groups", "M36", "expert_ids", real="ROCm/aiter@b82dcd5143", claims=SHARED
)
def _(w: Work) -> Array:
    """Groups were every n-th expert, as some ranks hold them, not consecutive ones."""
    count = w.groups.count
    apart = w.competing.reshape(len(w.competing), w.experts_per_group, count).swapaxes(1, 2)
    share = w.config.top_k // count
    ids = top_k(apart.reshape(-1, w.experts_per_group), share)
    found: Array = ids.reshape(len(w.competing), count, share) * count + np.arange(count)[:, None]
    return found.reshape(len(w.competing), w.config.top_k)


@mutant(
    "share-ranked-without-bias", "M24", "expert_ids", real="vllm-project/vllm#33858", claims=SHARED
)
def _(w: Work) -> Array:
    """Each group gave its best by the scores alone: the bias balanced nothing."""
    return best_of(w.redone(biased=lambda unbiased: unbiased.scores), top_k)


@mutant(
    "share-in-half-of-the-groups",
    "M24",
    "expert_ids",
    real="EricLBuehler/mistral.rs#1278",
    claims=SHARED,
)
def _(w: Work) -> Array:
    """The groups with the best expert gave two shares, as group-limited routing would have it."""
    groups, size = w.groups, w.experts_per_group
    if groups.count % 2 or 2 * w.config.top_k // groups.count > size:
        return best_of(w, top_k)
    best = w.competing.reshape(len(w.competing), groups.count, size).max(axis=2)
    kept = np.zeros(best.shape, bool)
    np.put_along_axis(kept, top_k(best, groups.count // 2), True, axis=1)
    inside = np.where(np.repeat(kept, size, axis=1), w.competing, np.float32(-np.inf))
    return top_k(inside, w.config.top_k)


@mutant("uneven-shares-answered", "M38", "config", real=_LMDEPLOY, claims=SHARED)
def _(w: Work) -> RouterConfig:
    """K that the groups do not divide was rounded down: a token ran fewer experts than K."""
    groups = w.requested.groups
    if groups is None or not w.requested.top_k % groups.count:
        return config(w)
    w.claims.require(w.requested, w.inputs)
    rounded = max(1, w.requested.top_k // groups.count) * groups.count
    return RouterConfig(**{**vars(w.requested), "top_k": rounded})


@mutant(
    "share-renormalised-by-group",
    "M18",
    "norm",
    real="databricks/megablocks@04e4f1f",
    claims=SHARED,
)
def _(w: Work) -> Array:
    """The weights of every group were made to sum to 1, not those of the token."""
    group = w.expert_ids // w.experts_per_group
    same = group[:, :, None] == group[:, None, :]
    total: Array = np.where(same, np.abs(w.gathered)[:, None, :], 0).sum(axis=2)
    return np.maximum(total + np.float32(w.rule.eps), np.float32(w.rule.floor))
