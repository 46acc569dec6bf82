"""The wire of replays: the request to route, with the record."""

from __future__ import annotations

from typing import Any

from moe_routing.implementations import wire
from moe_routing.reference import Recorded, RouterConfig, RouterInputs
from moe_routing.reference.jsonform import to_json


def replay_request(
    config: RouterConfig, inputs: RouterInputs, recorded: Recorded
) -> dict[str, Any]:
    """Return the request to replay: that to route, and the fields that the record has."""
    fields: dict[str, Any] = {"layer": recorded.layer}
    for name in ("expert_ids", "weights", "rows"):
        if (array := getattr(recorded, name)) is not None:
            fields[name] = {"shape": list(array.shape), "values": to_json(array.ravel().tolist())}
    return {**wire.route_request(config, inputs), "request": "replay", "recorded": fields}
