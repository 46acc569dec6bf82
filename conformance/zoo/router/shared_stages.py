"""The right stages of a shared expert."""

from __future__ import annotations

from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.conformance.zoo.router.work import Stage, Work


def shared_output(w: Work) -> Array:
    """Compute the shared expert's MLP."""
    gate, up = w.shared_input @ w.inputs.gate_proj.T, w.shared_input @ w.inputs.up_proj.T
    output: Array = (gate * sigmoid(gate) * up) @ w.inputs.down_proj.T
    return output


def shared_gate(w: Work) -> Array | None:
    """Return the shared expert's gate, ``[T, 1]``, or None."""
    return sigmoid(w.inputs.hidden @ w.inputs.gate.T) if w.requested.gated else None


def contribution(w: Work) -> Array | None:
    """Gate the shared expert's output; None where there is no shared expert."""
    if w.requested.kind == "none":
        return None
    return w.shared_output if w.shared_gate is None else w.shared_output * w.shared_gate


SHARED: dict[str, Stage] = {
    "shared_input": lambda w: w.inputs.hidden,
    "shared_output": shared_output,
    "shared_gate": shared_gate,
    "contribution": contribution,
}
"""The stages of a shared-expert call, by name."""
