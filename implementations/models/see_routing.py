"""The routing that a call shows, and the gradients of its router."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.implementations.models.arrays import array, rows, tensors_of
from moe_routing.implementations.models.heard import Heard, some_routes, some_rows
from moe_routing.implementations.models.seen import SeenRouting
from moe_routing.reference import RouterConfig, Routing

_STEERS = ("selection_bias", "expert_table")


def see_routing(heard: Heard) -> SeenRouting:
    """Return the routing of a call, and the gradients of its router. Errors: ``CannotRead``."""
    call = heard.call
    config, inputs, native, kept = (
        heard.config,
        heard.router_inputs,
        heard.native,
        heard.routed_rows,
    )
    if len(kept) < inputs.num_tokens:
        inputs, native = some_rows(inputs, kept), some_routes(native, kept)
    cotangent, gradients, ungraded = _gradients(heard, native, config)
    return SeenRouting(
        path=call.site.router_path,
        block=call.site.path,
        tokens=kept,
        adapter=f"transformers:{call.site.row.name}",
        device=call.device,
        notes=tuple(f"it called {each}, which is another block's" for each in call.strangers),
        config=config,
        inputs=inputs,
        routing=native,
        logits="none" if native.logits is None else call.site.row.logits,
        numerics=heard.numerics,
        cotangent=cotangent,
        gradients=gradients,
        ungraded=ungraded,
        detached=not heard.ungraded and _detached(heard),
    )


def _gradients(
    heard: Heard, native: Routing, config: RouterConfig
) -> tuple[Any, dict[str, Any], str]:
    call = heard.call
    back, row = call.back, call.site.row
    if heard.ungraded:
        return None, {}, heard.ungraded
    if row.reads not in ("experts", "divided", "router"):
        return None, {}, "its weights are not handed to its experts one a slot"
    if "experts.weights" not in back:
        return None, {}, "no gradient came back to its weights"
    if heard.times.get(id(call.site.router)) != 1 or call.strangers:
        return None, {}, "its router was called several times, or by several blocks"
    given = array("the cotangent", back["experts.weights"]).astype(np.float64)
    given = given / config.top_k if row.reads == "divided" else given
    ids = array("expert ids", native.expert_ids)
    if ids.min() < 0 or ids.max() >= config.num_experts:
        return None, {}, "some of its ids are out of range"
    dense = np.zeros((len(ids), config.num_experts))
    np.add.at(dense, (np.arange(len(ids))[:, None], ids), given.reshape(ids.shape))
    return dense, _own(heard), ""


def _own(heard: Heard) -> dict[str, Any]:
    """Return the gradients that came back to the router, None where one should have come."""
    call = heard.call
    row, own, back = call.site.row, tensors_of(call.site.block), call.back
    found: dict[str, Any] = {}
    if row.logits == "routed" and row.reads != "router":
        logits = back.get("returned.0")
        if logits is not None:
            found["logits"] = logits.reshape(-1, heard.config.num_experts)
    if "hidden" in back:
        found["hidden"] = rows(back["hidden"])
    for name, field in row.arrays.items():
        tensor = own.get(name)
        if tensor is not None and tensor.requires_grad and field not in _STEERS:
            found[field] = tensor.grad
    return found


def _detached(heard: Heard) -> bool:
    """Whether the experts learn, the gate should, and nothing leads back to it."""
    call, row = heard.call, heard.call.site.row
    learns = any(
        name in row.arrays and tensor.requires_grad and row.arrays[name] == "gate_weight"
        for name, tensor in tensors_of(call.site.block).items()
    )
    back = call.back
    seen = "experts.output" in back and "weights" in call.experts_given
    return learns and seen and "experts.weights" not in back and row.replays is not None
