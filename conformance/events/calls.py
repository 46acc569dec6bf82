"""Events of whole calls: dtypes, memory layout, claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.again import cases_of
from moe_routing.conformance.events.registry import ROWS, event
from moe_routing.conformance.generators.construct import Arrays, table_cases
from moe_routing.conformance.generators.neighbours import neighbours
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities, Limits

Steps = Callable[[tuple[int, ...], int], bool]
"""Returns whether an array with these strides and item size has a certain memory layout."""


@event("any-case", "any claimed call", lambda b: b.inputs.num_tokens > 0)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, ROWS, top_k=2)
    yield from table_cases(capabilities, ROWS, top_k=1)
    for experts, top_k in ((3, 2), (2, 1), (1, 1)):
        yield from table_cases(capabilities, np.array(ROWS)[:, :experts], top_k=top_k)


@event(
    "strided-input",
    "hidden states that are not laid out in rows",
    lambda b: not b.inputs.hidden.flags.c_contiguous,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 1):
        yield from table_cases(capabilities, ROWS, top_k=top_k, layout="hidden")
        yield from table_cases(capabilities, ROWS, top_k=top_k, layout="gate_weight")


def _lies(slug: str, statement: str, name: str, transposed: str, test: Steps) -> None:
    def occurs(bounds: Bounds) -> bool:
        array = getattr(bounds.inputs, name)
        if name == "hidden" and bounds.inputs.logits is not None:
            array = bounds.inputs.logits
        return array is not None and array.size > 0 and test(array.strides, array.itemsize)

    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        biased = name == "selection_bias"
        bias: Arrays = {"selection_bias": [0.0, 0.25, -0.25, 0.5]} if biased else {}
        for top_k in (2, 1):
            yield from table_cases(capabilities, ROWS, top_k=top_k, layout=transposed, **bias)


def _is_transposed(steps: tuple[int, ...], item: int) -> bool:
    return item <= steps[0] < steps[1]


def _is_spaced(steps: tuple[int, ...], item: int) -> bool:
    return steps[-1] > item and (len(steps) == 1 or steps[0] > steps[1])


_lies(
    "transposed-hidden",
    "hidden states, or given logits, laid out in columns",
    "hidden",
    "hidden",
    _is_transposed,
)
_lies(
    "spaced-hidden",
    "hidden states, or given logits, sliced out of wider ones",
    "hidden",
    "gate_weight",
    _is_spaced,
)
_lies("transposed-gate", "a gate laid out in columns", "gate_weight", "gate_weight", _is_transposed)
_lies("spaced-gate", "a gate sliced out of a wider one", "gate_weight", "hidden", _is_spaced)
_lies("spaced-bias", "a selection bias with gaps", "selection_bias", "hidden", _is_spaced)


def _of_dtype(dtype: str) -> None:
    @event(f"{dtype}-input", f"inputs stored in {dtype}", lambda b: b.inputs.dtype == dtype)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        if dtype in capabilities.dtypes:
            yield from cases_of("any-case", replace(capabilities, dtypes=(dtype,)))


for _dtype in ("float32", "bfloat16", "float16"):
    _of_dtype(_dtype)


@event("outside-claims", "a call that the backend does not claim", lambda b: True, beyond=True)
def _(capabilities: Capabilities) -> Iterator[Case]:
    whole = Capabilities(takes=capabilities.takes, layouts=capabilities.layouts)
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
        for case in cases_of(slug, whole):
            if not capabilities.admits(case.config, case.inputs):
                yield case
    yield from _beyond_limits(capabilities)


def _beyond_limits(capabilities: Capabilities) -> Iterator[Case]:
    """Yield calls that no claim is short of, but the limits."""
    if capabilities.limits == Limits():
        return
    for slug in ("any-case", "group-excludes-better"):
        for case in cases_of(slug, capabilities):
            for each in neighbours(case, capabilities.limits):
                if not capabilities.admits(each.config, each.inputs):
                    yield each
