"""Events of published sizes: E, K, groups and H of one model, and wide hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.again import cases_of
from moe_routing.conformance.events.fine import Router, dtypes_from, fine_calls
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.events.sizes import favouring_last, ladder
from moe_routing.conformance.generators.construct import table_cases, with_inputs
from moe_routing.conformance.generators.published import (
    PUBLISHED,
    Published,
    published_widths,
    sizes_of,
)
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig
from moe_routing.reference.formats import Bools

_TOKENS = 13

FAMILIES["published"] = "E, K, and the groups of a shipped model, exactly; an upper expert wins"


def _of_model(sizes: Published) -> None:
    groups = sizes.groups
    router = Router(
        experts=sizes.num_experts,
        top_k=sizes.top_k,
        groups=groups,
        dtypes=dtypes_from("float32" if sizes.top_k % 4 else "bfloat16"),
    )

    def occurs(bounds: Bounds) -> bool:
        upper = bounds.reference.expert_ids >= sizes.num_experts // 2
        return sizes_of(bounds.config) == sizes.key and bool(upper.any())

    words = "" if groups is None else f", {groups[1]} of {groups[0]} groups kept"
    slug = f"published:{sizes.num_experts}-experts-top-{sizes.top_k}"
    slug += "" if groups is None else f"-groups-{groups[1]}-of-{groups[0]}"

    @event(slug, f"{sizes.num_experts} experts, top {sizes.top_k}{words}", occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        yield from fine_calls(capabilities, router, _TOKENS)
        wants = {"groups": None} if groups is None else {}
        rows = favouring_last(sizes.num_experts)
        yield from table_cases(capabilities, rows, top_k=sizes.top_k, wants=wants, groups=groups)


for _sizes in PUBLISHED:
    _of_model(_sizes)


def _at_width(
    slug: str, statement: str, sizes: Sequence[Published], test: Callable[[RouterConfig], bool]
) -> None:
    """Register an event of H with E, K and groups, shown by the least of ``sizes``."""

    def occurs(bounds: Bounds) -> bool:
        config, inputs = bounds.config, bounds.inputs
        wide = inputs.num_tokens > 0 and inputs.hidden_size in published_widths(config)
        return wide and test(config)

    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for each in sorted(sizes, key=lambda each: each.num_experts * each.widths[0]):
            rows = favouring_last(each.num_experts)
            cases = table_cases(capabilities, rows, top_k=each.top_k, groups=each.groups)
            yield from _widened(cases, each.widths[0])


def _widened(cases: Iterable[Case], width: int) -> Iterator[Case]:
    """Yield ``cases`` with hidden states and gate of ``width``, zeros before their own numbers."""
    for case in cases:
        inputs = case.inputs
        if inputs.logits is not None or case.config.input_norm is not None:
            continue
        more = ((0, 0), (width - inputs.hidden_size, 0))
        names = [
            name for name in ("hidden", "gate_weight", "gate_delta") if name in inputs.arrays()
        ]
        yield with_inputs(case, **{name: np.pad(getattr(inputs, name), more) for name in names})


def _limits_groups(config: RouterConfig) -> bool:
    return config.groups is not None and config.groups.count > 1


_at_width(
    "published-width",
    "E, K, groups and H of a shipped model, exactly",
    PUBLISHED,
    lambda config: True,
)
_at_width(
    "published-width-of-groups",
    "E, K, several groups and H of a shipped model, exactly",
    [each for each in PUBLISHED if each.groups is not None and each.groups[0] > 1],
    _limits_groups,
)


@event(
    "hidden-above-4096",
    "hidden states of more than 4,096 numbers, not all of those beyond 0",
    lambda b: bool(b.inputs.hidden[:, 4096:].any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = ladder(2, fitting_experts(capabilities, 4))
    for top_k in (2, 1):
        for case in table_cases(capabilities, rows, top_k=top_k):
            yield from _widened([case], 4096 + 2 * case.config.num_experts)


def _ends_ragged(bounds: Bounds) -> bool:
    """Return whether numbers count that come after the last whole block of columns."""
    inputs, whole = bounds.inputs, bounds.inputs.hidden_size // _BLOCK * _BLOCK
    tail = (inputs.hidden[:, whole:] != 0.0).any(axis=1)
    return 4 * _BLOCK < inputs.hidden_size != whole and bool((tail & bounds.judged).any())


_BLOCK = 64


@event(
    "ragged-columns",
    f"more than {4 * _BLOCK} columns, which {_BLOCK} does not divide, and the last count",
    _ends_ragged,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    size = fitting_experts(capabilities, 4)
    for top_k in (2, 1):
        for case in table_cases(capabilities, favouring_last(size), top_k=top_k):
            blocks = 5 + case.config.num_experts // _BLOCK
            yield from _widened([case], blocks * _BLOCK + 8)


@event(
    "fine-hidden-above-4096",
    "numbers beyond the 4,096th of a hidden state, of more bits than tf32 holds, decide",
    lambda b: b.inputs.hidden_size > 4096 and bool(_loses_in_tf32(b.inputs.hidden[:, 4096:]).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    if "float32" in capabilities.dtypes:
        for case in cases_of("hidden-above-4096", replace(capabilities, dtypes=("float32",))):
            yield _of_differences(case)


def _loses_in_tf32(values: npt.NDArray[np.float32]) -> Bools:
    lost: Bools = values.view(np.int32) & 0x1FFF != 0
    return lost


def _of_differences(case: Case) -> Case:
    """Return ``case`` with small integers as logits, each the difference of two large numbers."""
    inputs, experts = case.inputs, case.config.num_experts
    plus = np.arange(experts) - 2 * experts  # columns that are added; the rest are subtracted
    hidden, gate = np.array(inputs.hidden), np.zeros_like(inputs.gate_weight)
    hidden[:, -2 * experts :] = 4096.0
    hidden[:, plus] += 4.0 * inputs.hidden[:, -experts:]
    gate[np.arange(experts), plus] = 1.0
    gate[np.arange(experts), plus + experts] = -1.0
    return with_inputs(case, hidden=hidden, gate_weight=gate)
