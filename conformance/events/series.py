"""Series: the same tokens in batches of every size at which kernels change their path.

Each event is one router of published sizes. Its tokens are 61, a prime, so that no block of a
kernel holds them in step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.fine import Router, dtypes_from, fine_calls
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.axes import KERNEL_SIZES
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities

TOKENS, SERIES = 61, "series"

_MOST, _MOST_OFTEN, _LESS = 2**20 + 2**9, 2**21 + 2**8, 2**18
"""The most numbers in the logits of a batch; of a router asked often, first, and then."""
_AGAIN = 2**19 + 2**8
"""The same, in clauses that repeat a part of what ``invariance.batch-split`` checks."""

_POWERS = tuple(2**power for power in range(3, 14))
_FEWER = (TOKENS, *sorted({1, *_POWERS, *(size + 1 for size in (*_POWERS[1::2], _POWERS[-1]))}))
"""The batches of a series: its own tokens first, each size, and one more of every other one."""

SIZES = (TOKENS, *sorted({*_FEWER[1:], *(size for size in KERNEL_SIZES if size < 4095)}))
"""The batches of a router asked often: one token more of each, and one fewer."""


@dataclass(frozen=True, kw_only=True)
class Series(Router):
    """A router to call with batches of many sizes.

    It is called under one claim; where ``often``, under each and in each dtype.
    """

    often: bool = False

    @property
    def name(self) -> str:
        """The name of the event, after its family."""
        grouped = "" if self.groups is None else f"-in-{self.groups[0]}-groups"
        return f"{self.score}-of-{self.experts}{grouped}{'-biased' * bool(self.biased)}"

    @property
    def words(self) -> str:
        """The router in words."""
        kept = "" if self.groups is None else f", {self.groups[1]} of {self.groups[0]} groups kept"
        bias = " and a selection bias" if self.biased else ""
        return f"{self.score} of {self.experts} experts, top {self.top_k}{kept}{bias}"


def _of(
    score: str,
    experts: int,
    top_k: int,
    groups: tuple[int, int] | None = None,
    *,
    biased: bool = False,
    first: str = "bfloat16",
    often: bool = False,
) -> Series:
    return Series(
        score=score,
        experts=experts,
        top_k=top_k,
        groups=groups,
        biased=biased,
        dtypes=dtypes_from(first),
        often=often,
    )


ROUTERS = (
    _of("softmax", 8, 2),
    _of("softmax", 64, 8, first="float16"),
    _of("softmax", 128, 8, first="float32"),
    _of("softmax", 256, 8, often=True),
    _of("softmax", 512, 10),
    _of("softmax", 64, 6, biased=True),
    _of("softmax", 160, 6, (8, 3)),
    _of("sigmoid", 128, 8, biased=True),
    _of("sigmoid", 256, 8, first="float32"),
    _of("sigmoid", 256, 8, biased=True, often=True),
    _of("sigmoid", 256, 8, (8, 4), biased=True, often=True),
    _of("sigmoid", 384, 8, biased=True),
    _of("sigmoid", 512, 8, (8, 4), biased=True, first="float32"),
    _of("sigmoid", 896, 16, biased=True),
    _of("sqrtsoftplus", 256, 6, biased=True),
    _of("identity", 128, 4),
)
"""Routers of published sizes, one for each mix of score, groups and bias that is common."""

FAMILIES["sizes"] = "batches of every size at which kernels change their path, of one router"


def _register(router: Series) -> None:
    def occurs(bounds: Bounds) -> bool:
        return bounds.inputs.num_tokens in SIZES and router.fits(bounds)

    statement = f"{router.words}, in batches of many sizes"

    @event(f"sizes:{router.name}", statement, occurs, series=True)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for number, case in enumerate(_calls(capabilities, router)):
            most = _LESS if number else _MOST_OFTEN if router.often else _MOST
            most = min(most // router.experts, capabilities.limits.max_tokens or most)
            sizes = SIZES if router.often and not number else _FEWER
            yield from (_batch(case, size) for size in sizes if size <= most)


def _in_many_sizes(slug: str, words: str, router: Series) -> None:
    """Register one router in batches of powers of two, and of one token more, up to 2,049."""

    @event(slug, words, lambda b: b.inputs.num_tokens > 1 and router.fits(b), series=True)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        most = capabilities.limits.max_tokens or _MOST
        sizes = [size for size in _FEWER if size <= min(most, _AGAIN // router.experts)]
        for case in islice(fine_calls(capabilities, router, TOKENS), 1):
            yield from (_batch(case, size) for size in sizes)


_in_many_sizes(
    "biased-in-many-sizes",
    "sigmoid of 256 experts, top 8 and a selection bias, in several tokens",
    _of("sigmoid", 256, 8, biased=True),
)
_in_many_sizes(
    "grouped-in-many-sizes",
    "sigmoid of 256 experts, top 8, 4 of 8 groups kept and a selection bias, in several tokens",
    _of("sigmoid", 256, 8, (8, 4), biased=True),
)


def _calls(capabilities: Capabilities, router: Series) -> Iterator[Case]:
    """Yield the router's call under one claim; where it is asked often, in each dtype, and each.

    Not in each dtype of each claim: a claim is another function, a dtype another kernel of it.
    """
    dtypes = [dtype for dtype in router.dtypes if dtype in capabilities.dtypes]
    first = next(fine_calls(capabilities, router, TOKENS), None)
    if first is None:
        return
    yield first
    if not router.often:
        return
    for dtype in dtypes[1:]:
        yield from islice(fine_calls(replace(capabilities, dtypes=(dtype,)), router, TOKENS), 1)
    alone = replace(capabilities, dtypes=(first.inputs.dtype,))
    yield from islice(fine_calls(alone, router, TOKENS), 1, None)


def _batch(case: Case, size: int) -> Case:
    return replace(take_tokens(case, np.arange(size) % case.inputs.num_tokens), recipe=SERIES)


for _router in ROUTERS:
    _register(_router)
