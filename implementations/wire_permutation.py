"""The wire of permutations: the request, and the four layouts that answer it."""

from __future__ import annotations

from typing import Any

from moe_routing.implementations import wire
from moe_routing.reference import (
    AlignedBlocks,
    PermutationConfig,
    Routes,
    RowOfRoute,
    SortedRoutes,
    SortedTokens,
)
from moe_routing.reference.jsonform import to_json
from moe_routing.reference.layouts import Layout

LAYOUTS: dict[str, type[Layout]] = {
    "sorted_routes": SortedRoutes,
    "sorted_tokens": SortedTokens,
    "aligned_blocks": AlignedBlocks,
    "row_of_route": RowOfRoute,
}
"""The answers to a call of ``permute``, by the key that holds each."""


def permute_request(config: PermutationConfig, routes: Routes) -> dict[str, Any]:
    """Return the request to permute: the configuration's fields, and the two arrays."""
    arrays = {
        name: {"shape": list(array.shape), "values": to_json(array.ravel().tolist())}
        for name, array in routes.arrays().items()
    }
    return {"request": "permute", "config": dict(vars(config)), "inputs": arrays}


def read_permutation(reply: dict[str, Any]) -> Layout:
    """Return the answer to a call of ``permute``.

    Errors: ``Unsupported`` and ``wire.BackendError``, in the backend's words;
    ``wire.ProtocolError``.
    """
    return wire.read_layout(reply, LAYOUTS)
