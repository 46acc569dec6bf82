"""Smaller calls of a layer: a narrower and plainer layer, then a smaller routing call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.layer import LayerCase
from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.generators.reducer import Reduction, attempt, subsets
from moe_routing.conformance.generators.reductions import ROUTING_REDUCTIONS
from moe_routing.conformance.generators.sizes import Size
from moe_routing.reference import SharedExpertConfig
from moe_routing.reference.formats import INPUT_FORMATS, Ids
from moe_routing.reference.layer import OF_EXPERTS, OF_SHARED

_AXES: dict[str, Mapping[str, int]] = {
    "width": {
        "experts_gate": 1,
        "experts_up": 1,
        "experts_down": 2,
        "experts_gate_bias": 1,
        "experts_up_bias": 1,
    },
    "shared_width": {"shared_gate_proj": 0, "shared_up_proj": 0, "shared_down_proj": 1},
    "hidden": {
        **{"hidden": 1, "gate_weight": 1, "gate_delta": 1, "hidden_scale": 0},
        **{"experts_gate": 2, "experts_up": 2, "experts_down": 1, "experts_down_bias": 1},
        **{"shared_gate_proj": 1, "shared_up_proj": 1, "shared_down_proj": 0, "shared_gate": 1},
    },
    "tokens": {"hidden": 0, "token_ids": 0},
    "experts": {
        **dict.fromkeys(("gate_weight", "gate_bias", "gate_delta"), 0),
        **dict.fromkeys(("selection_bias", "per_expert_scale"), 0),
        **dict.fromkeys(OF_EXPERTS, 0),
    },
}
"""The axis of each array that a size is."""


def keep(case: LayerCase, size: str, kept: Ids) -> LayerCase:
    """Return the case with these alone of one of its sizes. Errors: ``ValueError`` for none."""
    arrays = case.inputs.arrays()
    axes = {name: axis for name, axis in _AXES[size].items() if name in arrays}
    cut: dict[str, Any] = {n: np.take(arrays[n], kept, axis=axis) for n, axis in axes.items()}
    return replace(case, inputs=with_changes(case.inputs, **cut))


def keep_experts(case: LayerCase, kept: Ids) -> LayerCase:
    """Return the case with these experts. Errors: ``ValueError`` where they are too few."""
    if case.config.router.groups is not None or case.inputs.expert_table is not None:
        raise ValueError("the experts are those of groups, or of a table")
    config = replace(
        case.config,
        router=replace(case.config.router, num_experts=len(kept)),
        experts=replace(case.config.experts, num_experts=len(kept)),
    )
    return replace(keep(case, "experts", kept), config=config)


def _fewer(size: str) -> Reduction:
    def proposed(case: LayerCase) -> Iterator[LayerCase]:
        for kept in subsets(_count(case, size)):
            yield from attempt(keep, case, size, kept)

    return proposed


def _count(case: LayerCase, size: str) -> int:
    arrays = case.inputs.arrays()
    found = [arrays[name].shape[axis] for name, axis in _AXES[size].items() if name in arrays]
    return int(found[0]) if found else 0


def _experts(case: LayerCase) -> Iterator[LayerCase]:
    for kept in subsets(case.config.router.num_experts):
        yield from attempt(keep_experts, case, kept)


def _parts(case: LayerCase) -> Iterator[LayerCase]:
    """Yield the case without its shared expert, and without biases."""
    inputs = case.inputs
    if inputs.shared_up_proj is not None:
        none = replace(case.config, shared=SharedExpertConfig(kind="none"))
        bare = with_changes(inputs, **dict.fromkeys(OF_SHARED))
        yield replace(case, config=none, inputs=bare)
    biases = [name for name in OF_EXPERTS if name.endswith("_bias")]
    if any(getattr(inputs, name) is not None for name in biases):
        yield replace(case, inputs=with_changes(inputs, **dict.fromkeys(biases)))


def _routing(reduction: Reduction) -> Reduction:
    """Return a reduction of the routing call, where its sizes but that of tokens stay."""

    def proposed(case: LayerCase) -> Iterator[LayerCase]:
        shape = case.inputs.gate_weight.shape
        for routed in reduction(case.contained):
            if routed.inputs.gate_weight.shape == shape and routed.dtype == case.dtype:
                yield from attempt(_around, case, routed)

    return proposed


def _around(case: LayerCase, routed: Any) -> LayerCase:
    config = replace(case.config, router=routed.config)
    return replace(case, config=config, inputs=replace(case.inputs, **vars(routed.inputs)))


def _plainer(case: LayerCase) -> Iterator[LayerCase]:
    """Yield the case with rounder numbers in its experts: small integers, then quarters."""
    form = INPUT_FORMATS[case.dtype]
    for step in (1.0, 0.25):
        for name, array in case.inputs.arrays().items():
            if name not in OF_EXPERTS and name not in OF_SHARED:
                continue
            plain = form.round(np.rint(array / step) * step).astype(np.float32)
            if not np.array_equal(plain, array):
                yield replace(case, inputs=with_changes(case.inputs, **{name: plain}))


LAYER_REDUCTIONS: tuple[Reduction, ...] = (
    _fewer("hidden"),
    _fewer("width"),
    _fewer("shared_width"),
    _fewer("tokens"),
    _experts,
    _parts,
    *(_routing(each) for each in ROUTING_REDUCTIONS),
    _plainer,
)
"""The reductions of a case of a layer, in the order in which they are tried."""

LAYER_SIZES = (
    Size(
        name="T",
        count=lambda case: case.num_tokens,
        usual=4,
        keep=lambda case, kept: keep(case, "tokens", kept),
    ),
    Size(name="E", count=lambda case: case.config.router.num_experts, usual=8, keep=keep_experts),
)
"""The sizes of a case of a layer that a failure may begin at."""
