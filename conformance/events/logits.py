"""Events of the logits: what decides them, and what they may grow to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.case import Case
from moe_routing.conformance.events.registry import EVENTS, event
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities


@event(
    "exact-logits",
    "logits of several terms that no order of summation rounds",
    lambda b: bool(b.logits.exact.any()) and b.inputs.num_tokens > 0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from EVENTS["any-case"].cases(capabilities)


def _part_decides(name: str) -> Callable[[Bounds], bool]:
    def occurs(bounds: Bounds) -> bool:
        if getattr(bounds.inputs, name) is None:
            return False
        plain = Bounds(bounds.config, replace(bounds.inputs, **{name: None}), bounds.numerics)
        a = np.sort(bounds.reference.expert_ids, axis=1)
        b = np.sort(plain.reference.expert_ids, axis=1)
        sure = bounds.only_reference & plain.only_reference
        return bool(((a != b).any(axis=1) & sure).any())

    return occurs


@event("delta-decides", "the LoRA delta changes which experts win", _part_decides("gate_delta"))
def _(capabilities: Capabilities) -> Iterator[Case]:
    delta = np.zeros((4, 4), np.float32)
    delta[3, 0], delta[2, 1] = 2.0, 4.0
    for top_k in (1, 2):
        yield from table_cases(
            capabilities,
            [[2.0, 1.0, 0.0, -1.0], [0.0, 2.0, -1.0, -2.0]],
            top_k=top_k,
            gate_delta=delta,
        )


@event("gate-bias-decides", "the linear bias changes which experts win", _part_decides("gate_bias"))
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (1, 2):
        yield from table_cases(
            capabilities,
            [[2.0, 1.0, 0.0, -1.0], [1.0, 2.0, -1.0, 0.0]],
            top_k=top_k,
            gate_bias=[0.0, 0.0, 4.0, 5.0],
        )


@event(
    "large-logits",
    "logits whose exponential overflows float32",
    lambda b: bool((np.abs(b.reference.operated[b.judged]) > 89.0).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[100.0, 120.0, -100.0, 96.0], [1000.0, 992.0, 1016.0, -1000.0]]
    yield from table_cases(capabilities, rows, top_k=2)
    yield from table_cases(capabilities, rows, top_k=1)


@event("nan-row", "a row of NaN beside good rows", lambda b: _some_nan_rows(b))
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [np.nan] * 4, [0.0, 1.5, 0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=2)
    yield from table_cases(capabilities, rows, top_k=1)


def _some_nan_rows(bounds: Bounds) -> bool:
    bad = np.isnan(bounds.reference.logits).any(axis=1)
    return bool(bad.any() and not bad.all())


@event(
    "infinite-logit",
    "logits that overflow to infinity",
    lambda b: bool(
        (b.logits.overflows.any(axis=1) & ~np.isnan(b.reference.logits).any(axis=1)).any()
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for dtype, big in (("float16", 60000.0), ("float32", 3e38), ("bfloat16", 2.0**127)):
        if dtype in capabilities.dtypes and capabilities.takes == "hidden":
            yield from _overflowing(capabilities, dtype, big)


def _overflowing(capabilities: Capabilities, dtype: str, big: float) -> Iterator[Case]:
    one = replace(capabilities, dtypes=(dtype,))
    rows = [[1.0, 0.25, -0.5, 2.0], [big, -big, 0.5, 1.0]]
    for top_k in (2, 1):
        for case in table_cases(one, rows, top_k=top_k):
            gate = case.inputs.gate_weight * np.float32(8.0)
            yield replace(case, inputs=replace(case.inputs, gate_weight=gate, logits=None))


@event(
    "lost-expert",
    "an expert whose logit is -inf",
    lambda b: bool(np.isneginf(b.reference.logits[b.judged]).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, -np.inf, -0.5, 2.0], [0.0, -np.inf, 0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=2)
    yield from table_cases(capabilities, rows, top_k=1)
