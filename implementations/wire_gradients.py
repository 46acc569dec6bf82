"""The wire of gradients: the request, and the routing and arrays that answer it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations import wire
from moe_routing.implementations.differentiates import RouterGradients
from moe_routing.reference import GRADIENTS, RouterConfig, RouterInputs
from moe_routing.reference.jsonform import to_json


def gradients_request(
    config: RouterConfig, inputs: RouterInputs, cotangent: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Return the request for gradients: that to route, and the cotangent."""
    table = {"shape": list(cotangent.shape), "values": to_json(cotangent.ravel().tolist())}
    return {
        **wire.route_request(config, inputs),
        "request": "gradients",
        "cotangent": table,
    }


def read_gradients(reply: dict[str, Any]) -> RouterGradients:
    """Return the answer to a call of ``gradients``: a routing, in any of its layouts, and arrays.

    Errors: ``Unsupported`` and ``wire.BackendError``, in the backend's words;
    ``wire.ProtocolError``.
    """
    routing = wire.read_layout(reply, wire.LAYOUTS)
    given = wire.table("gradients", reply.get("gradients"))
    if unknown := sorted(set(given) - set(GRADIENTS)):
        raise wire.ProtocolError(
            f"sent unknown keys {unknown} in gradients; expected only {', '.join(GRADIENTS)}"
        )
    arrays = {name: wire.part(name, value) for name, value in given.items()}
    return RouterGradients(routing=routing, **arrays)
