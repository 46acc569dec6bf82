"""The wire of drops: the request, and the two layouts that answer it."""

from __future__ import annotations

from typing import Any

from moe_routing.implementations import wire
from moe_routing.implementations.layouts import RoutingMap
from moe_routing.reference import CapacityConfig, Routes, Routing
from moe_routing.reference.jsonform import to_json

LAYOUTS: dict[str, type[Routing | RoutingMap]] = {"routing": Routing, "routing_map": RoutingMap}
"""The answers to a call of ``drop``, by the key that holds each."""


def drop_request(config: CapacityConfig, routes: Routes) -> dict[str, Any]:
    """Return the request to drop: the configuration's fields, and the two arrays."""
    arrays = {
        name: {"shape": list(array.shape), "values": to_json(array.ravel().tolist())}
        for name, array in routes.arrays().items()
    }
    return {"request": "drop", "config": dict(vars(config)), "inputs": arrays}


def read_drop(reply: dict[str, Any]) -> Routing | RoutingMap:
    """Return the answer to a call of ``drop``.

    Errors: ``Unsupported`` and ``wire.BackendError``, in the backend's words;
    ``wire.ProtocolError``.
    """
    return wire.read_layout(reply, LAYOUTS)
