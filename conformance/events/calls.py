"""Events of whole calls: batch sizes, dtypes, memory layout, claims."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.case import Case
from moe_routing.conformance.events.registry import EVENTS, ROWS, event
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.implementations import Capabilities


@event("any-case", "any claimed call", lambda b: b.inputs.num_tokens > 0)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, ROWS, top_k=2)
    yield from table_cases(capabilities, ROWS, top_k=1)
    for experts, top_k in ((3, 2), (2, 1), (1, 1)):
        yield from table_cases(capabilities, np.array(ROWS)[:, :experts], top_k=top_k)


@event("empty-batch", "no token at all", lambda b: b.inputs.num_tokens == 0)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, np.zeros((0, 4)), top_k=2)
    yield from table_cases(capabilities, np.zeros((0, 4)), top_k=1)


@event("one-token", "a single token", lambda b: b.inputs.num_tokens == 1)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, ROWS[:1], top_k=2)
    yield from table_cases(capabilities, ROWS[:1], top_k=1)


def _batch_above(least: int) -> None:
    @event(
        f"batch-above-{least}", f"more than {least} tokens", lambda b: b.inputs.num_tokens > least
    )
    def _(capabilities: Capabilities) -> Iterator[Case]:
        rows = np.arange((least + 1) * 4).reshape(-1, 4) * 7 % 11 / 4.0
        yield from table_cases(capabilities, rows, top_k=2)
        yield from table_cases(capabilities, rows, top_k=1)


for _least in (8, 16, 256):
    _batch_above(_least)


@event(
    "strided-input",
    "hidden states that are not laid out in rows",
    lambda b: not b.inputs.hidden.flags.c_contiguous,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 1):
        yield from table_cases(capabilities, ROWS, top_k=top_k, spaced=True)


def _of_dtype(dtype: str) -> None:
    @event(f"{dtype}-input", f"inputs stored in {dtype}", lambda b: b.inputs.dtype == dtype)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        if dtype in capabilities.dtypes:
            yield from EVENTS["any-case"].cases(replace(capabilities, dtypes=(dtype,)))


for _dtype in ("float32", "bfloat16", "float16"):
    _of_dtype(_dtype)


@event("outside-claims", "a call that the backend does not claim", lambda b: True)
def _(capabilities: Capabilities) -> Iterator[Case]:
    whole = Capabilities(takes=capabilities.takes)
    for slug in (
        "any-case",
        "bias-on-gate",
        "bias-on-block",
        "bias-on-statics",
        "group-excludes-better",
        "gate-bias-decides",
        "delta-decides",
        "experts-scaled-apart",
        "saturated",
        "scaled",
        "not-renormalized",
        "bfloat16-input",
        "float16-input",
    ):
        for case in EVENTS[slug].cases(whole):
            if not capabilities.admits(case.config, case.inputs):
                yield case
