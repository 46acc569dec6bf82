"""The wire of layers: the request, and the output that answers it, with its routing or without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moe_routing.implementations import wire
from moe_routing.reference import LayerConfig, LayerInputs, LayerResult
from moe_routing.reference.jsonform import config_to_json, to_json


@dataclass(frozen=True, kw_only=True)
class LayerReply:
    """The output of a layer, as the key ``layer`` holds it."""

    output: Any


def layer_request(config: LayerConfig, inputs: LayerInputs) -> dict[str, Any]:
    """Return the request to run a layer: its three configurations, and the arrays there are."""
    arrays: dict[str, Any] = {"dtype": inputs.dtype}
    if inputs.gate_dtype != "input":
        arrays["gate_dtype"] = inputs.gate_dtype
    if inputs.selection_bias is not None:
        arrays["selection_bias_on"] = inputs.selection_bias_on
    for name, array in inputs.arrays().items():
        arrays[name] = {"shape": list(array.shape), "values": to_json(array.ravel().tolist())}
    return {"request": "layer", "config": config_to_json(config), "inputs": arrays}


def read_layer(reply: dict[str, Any]) -> LayerResult:
    """Return the answer to a call of ``layer``: the output, and its routing where there is one.

    Errors: ``Unsupported`` and ``wire.BackendError``, in the backend's words;
    ``wire.ProtocolError``.
    """
    output = wire.read_layout(reply, {"layer": LayerReply}).output
    if not any(key in reply for key in wire.LAYOUTS):
        return LayerResult(output=output)
    return LayerResult(output=output, routing=wire.read_layout(reply, wire.LAYOUTS))
