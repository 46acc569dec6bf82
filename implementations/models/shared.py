"""The shared expert of a block: its matrices and its gate, or why it is not judged."""

from __future__ import annotations

from typing import Any

from moe_routing.implementations.models.experts import NotKnown, limit_of, named
from moe_routing.reference import SharedExpertConfig

KINDS: dict[str, Any] = {
    "shared_expert": "singular",
    "shared_experts": "plural",
    "shared_mlp": "mlp",
}
"""The attribute that holds a shared expert, with its kind."""

_MATRICES = ("gate_proj", "up_proj", "down_proj")


def shared_of(block: Any) -> tuple[SharedExpertConfig, dict[str, Any], float]:
    """Return the shared expert of a block, its tensors and its limit; of none, no tensors.

    Errors: ``NotKnown``.
    """
    name = next((each for each in KINDS if getattr(block, each, None) is not None), "")
    if not name:
        return SharedExpertConfig(kind="none"), {}, float("inf")
    module = getattr(block, name)
    found = {each: _weight(module, each) for each in _MATRICES}
    function = getattr(module, "act_fn", getattr(module, "activation_fn", None))
    if named(function) != "silu":
        raise NotKnown(f"its {name}, a {type(module).__name__}, has another activation")
    gate = getattr(block, f"{name}_gate", None)
    if gate is not None:
        found["gate"] = gate.weight
    config = SharedExpertConfig(kind=KINDS[name], gated=gate is not None)
    return config, found, limit_of(module)


def _weight(module: Any, name: str) -> Any:
    linear = getattr(module, name, None)
    if linear is None or getattr(linear, "bias", None) is not None:
        raise NotKnown(f"its shared expert, a {type(module).__name__}, has other matrices")
    return linear.weight
