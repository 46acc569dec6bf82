"""Events of sizes: T, K and E."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import Floats


def ladder(tokens: int, experts: int) -> Floats:
    """Return logits ``[T, E]`` in quarters, distinct in each row, in another order in each."""
    order = np.arange(experts) * 7 % experts if experts % 7 else np.arange(experts)
    turns = (order + np.arange(experts)[:, None]) % experts / 4.0
    return turns[np.arange(tokens) % experts]


# T: the batch.


def _batch(slug: str, statement: str, tokens: int, test: Callable[[int], bool]) -> None:
    @event(slug, statement, lambda b: test(b.inputs.num_tokens))
    def _(capabilities: Capabilities) -> Iterator[Case]:
        rows = ladder(tokens, fitting_experts(capabilities, 4))
        for top_k in (2, 1):
            yield from table_cases(capabilities, rows, top_k=top_k)


_batch("empty-batch", "no token at all", 0, lambda tokens: tokens == 0)
_batch("one-token", "a single token", 1, lambda tokens: tokens == 1)
FAMILIES["batch"] = "T exactly: small, odd, and on both sides of where kernels change their path"
for _tokens in (2, 3, 4, 7, 8, 9, 16, 17, 32, 45, 63, 64, 65, 128, 129, 256, 257, 512, 1024):
    _batch(f"batch:{_tokens}", f"{_tokens} tokens", _tokens, _tokens.__eq__)
for _least in (8, 16, 256, 2048):
    _batch(f"batch-above-{_least}", f"more than {_least:,} tokens", _least + 1, _least.__lt__)
_batch("batch-above-50000", "more than 50,000 tokens", 2**16 + 1, (50_000).__lt__)  # past a grid
_batch(
    "ragged-batch",
    "more than 32 tokens, and no multiple of 4",
    33,
    lambda tokens: tokens > 32 and tokens % 4 != 0,
)


def _routes(slug: str, statement: str, least: int, test: Callable[[int], bool]) -> None:
    @event(slug, statement, lambda b: test(b.inputs.num_tokens * b.config.top_k))
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for top_k in (3, 2, 1):
            rows = ladder(least // top_k + 1, fitting_experts(capabilities, 4))
            yield from table_cases(capabilities, rows, top_k=top_k)


_routes(
    "ragged-routes",
    "more than 1,024 routes (T * K), and no multiple of it",
    1024,
    lambda routes: routes > 1024 and routes % 1024 != 0,
)
_routes("routes-above-65535", "more than 65,535 routes (T * K)", 65_535, (65_535).__lt__)


@event(
    "bulk-of-many-experts",
    "65,536 tokens or more, of 256 experts or more",
    lambda b: b.inputs.num_tokens >= 65_536 and b.config.num_experts >= 256,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = ladder(65_536, fitting_experts(capabilities, 256))
    for top_k in (8, 2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k)


@event(
    "batch-of-many-experts",
    "more than 256 tokens, of 128 experts or more",
    lambda b: b.inputs.num_tokens > 256 and b.config.num_experts >= 128,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = ladder(257, fitting_experts(capabilities, 128))
    for top_k in (8, 2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k)


@event(
    "tokens-equal-experts",
    "T equals E, so that nothing but its axes tells a table from its transpose",
    lambda b: b.inputs.num_tokens == b.config.num_experts > 1,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for experts, top_k in ((4, 2), (4, 1), (64, 2)):
        size = fitting_experts(capabilities, experts)
        yield from table_cases(capabilities, ladder(size, size), top_k=top_k)


# K: the selection.


def _selects(
    slug: str,
    statement: str,
    sizes: Sequence[tuple[int, int]],
    test: Callable[[int, int], bool],
) -> None:
    """Register an event of ``test(K, E)``, shown by the (K, E) in ``sizes``."""

    @event(
        slug,
        statement,
        lambda b: b.inputs.num_tokens > 0 and test(b.config.top_k, b.config.num_experts),
    )
    def _(capabilities: Capabilities) -> Iterator[Case]:
        others = (3, 2, fitting_experts(capabilities, 4))  # for backends with few experts, or steps
        each = [(k, e) for e in others for k in range(1, e + 1)]
        for top_k, experts in (*sizes, *each):
            yield from table_cases(capabilities, ladder(2, experts), top_k=top_k)


_selects("one-selected", "K is 1, of several experts", ((1, 4),), lambda k, e: k == 1 < e)
_selects("several-selected", "K is above 1", ((2, 4),), lambda k, e: k > 1)
_selects("all-experts-selected", "K equals E", ((4, 4), (8, 8)), lambda k, e: k == e > 1)
_selects("all-but-one-selected", "K is E - 1", ((3, 4), (7, 8)), lambda k, e: 1 < k == e - 1)
_selects(
    "odd-top-k",
    "K is no power of two, and below E",
    ((3, 5), (3, 8), (6, 16)),
    lambda k, e: k & (k - 1) != 0 and k < e,
)
_selects("top-k-above-15", "K is 16 or more, and below E", ((16, 18),), lambda k, e: 15 < k < e)
_selects("top-k-above-32", "K is 33 or more, and below E", ((33, 36),), lambda k, e: 32 < k < e)


# E: the experts.


def _experts(experts: int) -> None:
    """Register E exactly, with a winner past the last power of two below it."""
    past = 1 << (experts - 1).bit_length() - 1
    _many_experts(
        f"experts:{experts}",
        f"{experts} experts, one with an id of {past} or more wins",
        experts,
        lambda b: b.config.num_experts == experts and bool((b.reference.expert_ids >= past).any()),
    )


def _many_experts(
    slug: str, statement: str, experts: int, occurs: Callable[[Bounds], bool]
) -> None:
    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for top_k in (2, 1):
            yield from table_cases(capabilities, favouring_last(experts), top_k=top_k)


def favouring_last(experts: int) -> npt.NDArray[np.float32]:
    """Return logits of two tokens for which the last experts and the first ones win."""
    rows = np.zeros((2, experts), np.float32)
    rows[0, -1], rows[0, 0], rows[1, -2], rows[1, 1] = 4.0, 3.0, 4.0, 3.0
    return rows


FAMILIES["experts"] = "E exactly, and a winner past the last power of two below it"
for _number in (5, 16, 60, 96, 160, 192, 224, 256, 288, 320, 384, 448, 512, 576, 640, 1024):
    _experts(_number)
_many_experts(
    "experts-above-1024",
    "more than 1,024 experts, one with an id of 1,024 or more wins",
    1026,
    lambda b: bool((b.reference.expert_ids >= 1024).any()),
)
