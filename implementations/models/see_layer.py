"""The sum that a block returns: of what its experts returned, or as one function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moe_routing.implementations.models.arrays import array, dtype_of, of_dtype, picked, rows
from moe_routing.implementations.models.claims import FACTORS
from moe_routing.implementations.models.clamping import unclamped
from moe_routing.implementations.models.experts import NotKnown
from moe_routing.implementations.models.heard import WORK, Heard, some_rows
from moe_routing.implementations.models.seen import SeenLayer, SeenWhole
from moe_routing.implementations.models.shared import shared_of
from moe_routing.reference import (
    ExpertsConfig,
    LayerConfig,
    LayerInputs,
    SharedExpertConfig,
    SharedExpertInputs,
)
from moe_routing.reference.layer import OF_EXPERTS, OF_SHARED

_OWN = {theirs: own for own, theirs in OF_SHARED.items()}
_ELSEWHERE = {
    "axk1": "its block normalises the sum",
    "nemotron_h": "its block projects the hidden states before and after its experts",
    "muse_spark_text": "its block projects the hidden states before and after its experts",
    "jetmoe": "its block runs its experts itself, and adds a bias",
    "gemma4_text": "the model adds the outputs of its router's experts elsewhere",
    "diffusion_gemma_text": "the model adds the outputs of its router's experts elsewhere",
}
"""Why the sum of a block is not judged, by row."""


def see_layer(heard: Heard) -> SeenLayer | SeenWhole:
    """Return the sum of a block. Errors: ``NotKnown``, ``CannotRead``."""
    call = heard.call
    row = call.site.row
    if row.name in _ELSEWHERE:
        raise NotKnown(_ELSEWHERE[row.name])
    if call.output is None:
        raise NotKnown("the block did not return")
    shared, tensors, limit = shared_of(call.site.block)
    kept = picked(len(heard.hidden), _most(heard, tensors))
    if limit != float("inf") and tensors:
        kept = kept[unclamped(rows(call.hidden)[kept], None, tensors, limit)]
    if not len(kept):
        raise NotKnown("no token whose shared expert can be judged")
    inputs = _shared(heard, tensors, kept)
    output = rows(call.output.reshape(heard.hidden.shape))[kept]
    if call.experts_output is None or row.reads == "dense":
        return _whole(heard, shared, tensors, kept, output)
    factor, divisor = _factor(heard, bool(tensors))
    return SeenLayer(
        path=call.site.path,
        block=call.site.path,
        tokens=kept,
        routed=rows(call.experts_output)[kept],
        factor=factor,
        divisor=divisor,
        shared=shared,
        inputs=inputs,
        dtype=dtype_of(call.output),
        output=output,
    )


def _whole(
    heard: Heard, shared: SharedExpertConfig, tensors: dict[str, Any], kept: Any, output: Any
) -> SeenWhole:
    """Return the block as one call: its own tensors, its hidden states and its output."""
    config, whole, row = heard.config, heard.held, heard.call.site.row
    if whole.limit != float("inf"):
        raise NotKnown("its experts were not called, and their gates are clamped")
    on = "input" if row.reads == "dense" else "output"
    experts = ExpertsConfig(**{**vars(whole.config), "weight_on": on})
    factor, divisor = _factor(heard, bool(tensors))
    if divisor != 1.0 or (config.scale != 1.0 and factor != 1.0):
        raise NotKnown("its experts were not called, and its sum is scaled in two ways")
    fused = heard.call.experts_output is None
    made = replace(config, scale=config.scale * factor)
    most = min(len(kept), heard.affordable(config.top_k))
    some = picked(len(kept), most)
    router = some_rows(heard.router_inputs, kept[some])
    named = {theirs: own for own, theirs in OF_EXPERTS.items()}
    inputs: LayerInputs = of_dtype(
        LayerInputs,
        router.dtype,
        {
            **{n: each for n, each in vars(router).items() if n != "dtype"},
            **{named[n]: array(n, each) for n, each in whole.matrices.items()},
            **{_OWN[n]: array(n, each) for n, each in tensors.items()},
        },
    )
    return SeenWhole(
        path=heard.call.site.path,
        block=heard.call.site.path,
        tokens=kept[some],
        notes=("its experts were not called: the block is judged as one function",) * fused,
        config=LayerConfig(router=made, experts=experts, shared=shared),
        inputs=inputs,
        numerics=heard.numerics,
        output=output[some],
    )


def _most(heard: Heard, tensors: dict[str, Any]) -> int:
    if not tensors:
        return len(heard.hidden)
    return int(max(16, WORK // (3 * tensors["up_proj"].numel())))


def _shared(heard: Heard, tensors: dict[str, Any], kept: Any) -> SharedExpertInputs | None:
    if not tensors:
        return None
    hidden = rows(heard.call.hidden)[kept]
    made: SharedExpertInputs = of_dtype(
        SharedExpertInputs,
        dtype_of(hidden),
        {
            "hidden": array("hidden states", hidden),
            **{name: array(name, each) for name, each in tensors.items()},
        },
    )
    return made


def _factor(heard: Heard, shared: bool) -> tuple[float, float]:
    """Return what the sum of the experts is multiplied by, and the whole divided by."""
    row, settings = heard.call.site.row, heard.call.site.config
    factor, divisor = 1.0, 1.0
    if row.name in FACTORS:
        factor = float(getattr(settings, FACTORS[row.name]))
    if row.reads == "divided":
        factor = float(heard.config.top_k)
    if shared and getattr(settings, "shared_expert_combination_strategy", "") == "average":
        divisor = 2.0
    return factor, divisor
