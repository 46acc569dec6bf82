"""The wire of padded batches: the request to route, with the padding."""

from __future__ import annotations

from typing import Any

from moe_routing.implementations import wire
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.padding import Padding


def padded_request(config: RouterConfig, inputs: RouterInputs, padding: Padding) -> dict[str, Any]:
    """Return the request to route a padded batch: that to route, and how padding is told."""
    value = padding.value
    told: dict[str, Any] = {"told": padding.told}
    if isinstance(value, int):
        told["count"] = value
    else:
        told["mask"] = {"shape": [len(value)], "values": value.astype(int).tolist()}
    request = {**wire.route_request(config, inputs), "request": "route_padded"}
    return {**request, "padding": told}
