"""Shapes: E, K and groups exactly, between those of shipped models and beyond; H beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import chain, islice

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.fine import Router, dtypes_from, fine_calls
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities

_TOKENS, _FEW = 13, 5

_DTYPES = dtypes_from("float32"), dtypes_from("bfloat16")

_BEYOND = 1024
"""Experts that one block of threads does not hold."""


def _shape(family: str, name: str, words: str, router: Router) -> None:
    @event(f"{family}:{name}", words, router.fits)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        yield from fine_calls(capabilities, router, _TOKENS)


FAMILIES["shape"] = "E and K exactly, between those of shipped models and above them"
_SHAPES = (
    *((96, 7), (128, 5), (128, 9), (256, 5), (256, 7), (256, 9), (256, 16), (256, 32)),
    *((320, 8), (320, 5), (384, 9), (384, 12), (448, 7), (512, 16), (512, 32), (640, 9)),
    *((768, 8), (768, 16), (896, 16), (896, 9), (1024, 8), (1024, 32), (1280, 12)),
    *((1536, 16), (2048, 8), (2048, 32), (2304, 36)),
)
for _number, (_experts, _top_k) in enumerate(_SHAPES):
    _plain = _number % 3 == 1
    _shape(
        "shape",
        f"{_experts}-experts-top-{_top_k}",
        f"{_experts} experts, top {_top_k}, told apart finely",
        Router(
            experts=_experts,
            top_k=_top_k,
            score="softmax" if _plain else None,
            biased=False if _plain else None,
            dtypes=_DTYPES[_number % 2],
        ),
    )

_EACH, _MOST_SLOTS = range(2, 131), 40


def _slots_of(experts: int) -> int:
    """Return the K that comes with E: above 40 experts, each from 1 to 40 in turn."""
    return 1 + experts * 7 // 5 % min(experts, _MOST_SLOTS)


_OF_EACH_SLOT = {_slots_of(experts): experts for experts in reversed(_EACH) if experts > 40}
"""For each K from 1 to 40 the least E above 40 that it comes with."""


def _each(slug: str, statement: str, sizes: Collection[int]) -> None:
    """Register each of some numbers of experts, in a small call of its own."""

    def occurs(bounds: Bounds) -> bool:
        experts = bounds.config.num_experts
        exactly = experts in sizes and bounds.config.top_k == _slots_of(experts)
        return exactly and bounds.inputs.num_tokens > 0

    @event(slug, statement, occurs, series=True)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for experts in sizes:
            router = Router(experts=experts, top_k=_slots_of(experts), dtypes=_DTYPES[experts % 2])
            plain = replace(router, biased=False)  # no bias keeps the last expert from winning
            calls = (fine_calls(capabilities, each, _FEW) for each in (plain, router))
            yield from islice(chain.from_iterable(calls), 1)


_each("each-size", "E from 2 to 130, and K from 1 to 40, each exactly", _EACH)
_each("each-top-k", "K from 1 to 40, each exactly, of more experts", sorted(_OF_EACH_SLOT.values()))


FAMILIES["grouped-shape"] = "many groups or wide ones, of which more than four are kept, or one"
for _experts, _top_k, _count, _kept in (
    *((256, 8, 2, 1), (512, 8, 2, 1), (1024, 8, 4, 2), (256, 8, 16, 6), (256, 8, 32, 8)),
    *((256, 8, 64, 12), (512, 16, 16, 8), (512, 8, 128, 32), (384, 8, 12, 5)),
):
    _shape(
        "grouped-shape",
        f"{_experts}-experts-top-{_top_k}-groups-{_kept}-of-{_count}",
        f"{_experts} experts, top {_top_k}, {_kept} of {_count} groups kept",
        Router(experts=_experts, top_k=_top_k, groups=(_count, _kept)),
    )


@event(
    "softmax-of-more-than-1024",
    "a softmax over more than 1,024 experts, not renormalised",
    lambda b: (
        b.config.score == "softmax"
        and b.config.weights_from == "scores"
        and b.config.num_experts > _BEYOND
        and b.config.renormalize is None
        and b.inputs.num_tokens > 0
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (8, 2, 1):
        router = Router(score="softmax", experts=1536, top_k=top_k, renormalized=False)
        yield from fine_calls(capabilities, replace(router, biased=False), _FEW)
        yield from fine_calls(capabilities, router, _FEW)


FAMILIES["large-logit-of"] = "a softmax whose largest logit is past a block of so many experts"


def _large_logit_past(block: int) -> None:
    """Register a softmax of two experts more than a block, the last of which are far the best."""

    def occurs(bounds: Bounds) -> bool:
        if bounds.config.score != "softmax" or bounds.config.num_experts <= block:
            return False
        z = bounds.reference.operated[bounds.judged]
        return bool((z[:, block:].max(axis=1) - z[:, :block].max(axis=1) > 89.0).any())

    statement = f"a softmax whose largest logit by far is past the first {block:,} experts"

    @event(f"large-logit-of:{block + 2}-experts", statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        rows = np.tile(np.arange(block + 2) % 128 / 8.0 - 100.0, (2, 1))
        rows[0, -1], rows[1, -2] = 100.0, 120.0
        for top_k in (2, 1, 8):
            wants = {"score and weights": lambda pair: pair[0] == "softmax"}
            yield from table_cases(capabilities, rows, top_k=top_k, wants=wants)


for _block in (128, _BEYOND):
    _large_logit_past(_block)


def _bias_beyond(bounds: Bounds) -> bool:
    """Return whether an expert beyond the 1,024th wins by its bias alone."""
    if bounds.inputs.selection_bias is None or bounds.config.num_experts <= _BEYOND:
        return False
    scores, ids = bounds.reference.scores, bounds.reference.expert_ids
    cut = -np.sort(-scores, axis=1)[:, bounds.config.top_k - 1, None]
    won = np.take_along_axis(scores, ids, axis=1)
    return bool(((ids >= _BEYOND) & (won < cut)).any())


@event(
    "bias-decides-beyond-1024",
    "an expert beyond the 1,024th wins by its bias alone",
    _bias_beyond,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (8, 2, 1):
        yield from fine_calls(capabilities, Router(experts=1536, top_k=top_k, biased=True), _TOKENS)


FAMILIES["wide"] = "the H of a shipped model beside its E, K and groups, on fine numbers to its end"
_WIDE = (
    *((256, 8, (8, 4), 7168, "bfloat16"), (256, 8, (8, 4), 7168, "float32")),
    *((256, 8, None, 2048, "float32"), (384, 8, (1, 1), 7168, "bfloat16")),
    *((160, 6, (8, 3), 5120, "float16"), (128, 8, None, 2048, "bfloat16")),
    *((128, 8, None, 4096, "float32"), (512, 10, None, 2048, "bfloat16")),
    *((64, 8, None, 2048, "float16"), (128, 4, None, 2880, "bfloat16")),
    *((128, 8, (1, 1), 6144, "float16"), (8, 2, None, 4096, "float32")),
    *((32, 4, None, 2048, "bfloat16"), (256, 8, (8, 4), 7168, "float16")),
    *((256, 8, None, 3072, "bfloat16"), (288, 8, None, 4096, "float32")),
    (896, 16, None, 7168, "bfloat16"),
)
"""E, K, groups, H and the dtype that they come in: each H, and each dtype at the widest."""


def _wide(router: Router, width: int) -> None:
    (dtype,) = router.dtypes
    groups = "" if router.groups is None else f"-groups-{router.groups[1]}-of-{router.groups[0]}"
    slug = f"wide:{router.experts}-experts-top-{router.top_k}{groups}-{width}-{dtype}"
    words = f"{router.experts} experts, top {router.top_k}, of {width} numbers in {dtype}"

    def occurs(bounds: Bounds) -> bool:
        inputs = bounds.inputs
        sizes = inputs.hidden_size == width and inputs.dtype == dtype and inputs.num_tokens > 0
        return sizes and router.fits(bounds)

    @event(slug, words, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        yield from fine_calls(capabilities, router, _TOKENS, width)


for _experts, _top_k, _groups, _width, _dtype in _WIDE:
    _wide(Router(experts=_experts, top_k=_top_k, groups=_groups, dtypes=(_dtype,)), _width)
