"""Mutants of the limits: kernels that answer sizes which they cannot do, and claim no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from moe_routing.conformance.zoo.residents import WHOLE, mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import (
    checked,
    competing,
    expert_ids,
    filled,
    table_or,
)
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Capabilities, Claim, GroupRule, Limits
from moe_routing.reference.selection import top_k

_POWERS = tuple(2**n for n in range(13))


def _limited(claims: tuple[Claim, ...] = (Claim(),), **limits: object) -> Capabilities:
    """Return what a kernel claims that has these limits."""
    return replace(WHOLE, claims=claims, limits=Limits(**limits))  # type: ignore[arg-type]


def _of_the_first(w: Work, number: int) -> Array:
    """Return the best groups among the first ``number`` alone; the others come after them."""
    late = np.arange(w.groups.count) >= number
    return top_k(np.where(late, -np.inf, w.group_scores), w.groups.kept)


def keeping(most: int, home: Callable[[Array], Array]) -> Callable[[Work], Array]:
    """Return a stage in which each lane, ``home`` to some experts, proposes its ``most`` best."""

    def ids(w: Work) -> Array:
        if w.config.groups is not None:
            return expert_ids(w)
        homes = home(np.arange(w.config.num_experts))
        values = np.array(w.competing)
        for lane in np.unique(homes):
            members = np.flatnonzero(homes == lane)
            order = np.argsort(-values[:, members], axis=1, kind="stable")
            np.put_along_axis(values, members[order[:, most:]], np.float32(-np.inf), axis=1)
        few = most * len(np.unique(homes)) < w.config.top_k
        return table_or(w, lambda: top_k(w.competing if few else values, w.config.top_k))

    return ids


def _four_a_lane(slug: str, home: Callable[[Array], Array], harm: str) -> None:
    stage = keeping(4, home)
    stage.__doc__ = harm
    mutant(
        f"four-candidates-a-{slug}",
        "M35",
        "expert_ids",
        real="NVIDIA/TensorRT-LLM#7068",
        needs="129 experts, K=5",
        claims=_limited(
            (Claim(groups=(None,), expert_table=(False,)),), max_experts=256, max_top_k=8
        ),
    )(stage)


_four_a_lane(
    "lane",
    lambda ids: ids % 32,
    "Each of 32 lanes proposed its four best, of 8 that it held: a fifth never competed.",
)
_four_a_lane(
    "block",
    lambda ids: ids // 8,
    "Each thread held 8 experts side by side, and proposed its four best of them.",
)


@mutant(
    "groups-above-eight-unseen",
    "M25",
    "kept_groups",
    real="vllm-project/vllm 0.33.0, grouped_topk",
    needs="9 groups",
)
def _(w: Work) -> Array:
    """Eight warps scored a group each, of 16 or 32: one token in ten was right, or none."""
    return _of_the_first(w, 8)


@mutant(
    "groups-above-the-limit-answered",
    "M87",
    "config",
    "kept_groups",
    real="flashinfer-ai/flashinfer#5165",
    claims=_limited(max_groups=8),
)
def _(w: Work, stage: str) -> object:
    """Made for 8 groups, with a check that let 32 through: no token was right, and none raised."""
    return checked(w) if stage == "config" else _of_the_first(w, 8)


@mutant(
    "experts-of-kept-groups-cut-off",
    "M87",
    "config",
    "competing",
    real="flashinfer-ai/flashinfer#5165",
    claims=_limited(max_kept_experts=32, claims=(Claim(groups=(GroupRule(),)),)),
)
def _(w: Work, stage: str) -> object:
    """One warp held the candidates, 32 of them: of more, the last were never looked at."""
    if stage == "config":
        return checked(w)
    if w.config.groups is None:
        return competing(w)
    place = np.cumsum(w.kept, axis=1)
    return np.where(place > 32, np.float32(-np.inf), filled(w, w.groups.fill))


@mutant(
    "experts-that-are-no-power-of-two-answered",
    "M87",
    "config",
    "competing",
    real="ROCm/aiter@b82dcd5143",
    claims=_limited(experts=_POWERS),
)
def _(w: Work, stage: str) -> object:
    """384 experts came to a kernel for powers of two: it looked at the first 256."""
    if stage == "config":
        return checked(w)
    seen = 1 << (w.config.num_experts.bit_length() - 1)
    return np.where(np.arange(w.config.num_experts) < seen, competing(w), np.float32(-np.inf))


@mutant(
    "slots-that-are-no-power-of-two-answered",
    "M87",
    "config",
    "expert_ids",
    real="triton-lang/triton#11445",
    claims=_limited(top_k=_POWERS),
)
def _(w: Work, stage: str) -> object:
    """K = 18 was rounded down to 16 slots, and the first expert stood in the others."""
    if stage == "config":
        return checked(w)
    ids, slots = expert_ids(w), 1 << (w.config.top_k.bit_length() - 1)
    return np.where(np.arange(w.config.top_k) < slots, ids, ids[:, :1])
