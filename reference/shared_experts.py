"""Shared experts: what every token gets as well as its routed experts.

Source: ``docs/spec/shared-experts.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from moe_routing.reference.arrays import check_exact, freeze, present
from moe_routing.reference.checks import require_choice, require_flag
from moe_routing.reference.formats import INPUT_FORMATS, Floats
from moe_routing.reference.scores import sigmoid

SharedKind = Literal["none", "singular", "plural", "mlp"]
SHARED_KINDS: tuple[str, ...] = get_args(SharedKind)

_SHAPES = {"hidden": "TH", "gate_proj": "IH", "up_proj": "IH", "down_proj": "HI", "gate": "1H"}


@dataclass(frozen=True, kw_only=True)
class SharedExpertConfig:
    """Whether a block has a shared expert, under which attribute, and whether it is gated.

    ``kind`` is where a backend finds the module: ``singular`` (``shared_expert``),
    ``plural`` (``shared_experts``: DeepSeek's n experts fused into one wider MLP), ``mlp``
    (``shared_mlp``), or ``none``. ``gated`` adds Qwen2-MoE's ``shared_expert_gate``.
    Errors: ``ValueError`` naming the field.
    """

    kind: SharedKind = "singular"
    gated: bool = False

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, SHARED_KINDS)
        require_flag("gated", self.gated)
        if self.gated and self.kind == "none":
            raise ValueError("Cannot have gated=True with kind='none': there is nothing to gate")


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedExpertInputs:
    """The arrays of one shared-expert call, read-only, with their storage dtype.

    Shapes: ``hidden [T, H]``, ``gate_proj`` and ``up_proj [I, H]``, ``down_proj [H, I]``,
    and ``gate [1, H]`` (``shared_expert_gate``) or None. Values are float32 and exactly
    representable in ``dtype``. Errors: ``ValueError`` naming the array and the rule.
    """

    hidden: npt.NDArray[np.float32]
    gate_proj: npt.NDArray[np.float32]
    up_proj: npt.NDArray[np.float32]
    down_proj: npt.NDArray[np.float32]
    gate: npt.NDArray[np.float32] | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, tuple(INPUT_FORMATS))
        freeze(self, _SHAPES)
        for name, array in self.arrays().items():
            check_exact(name, array, self.dtype)

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the arrays that are present, by field name."""
        return present(self, _SHAPES)


def shared_contribution(config: SharedExpertConfig, inputs: SharedExpertInputs) -> Floats:
    """Return what the shared expert adds to the block's output, ``[T, H]`` in float64.

    ``down(silu(gate_proj x) * up_proj x)``, times ``sigmoid(gate x)`` where gated, added
    to the routed sum with weight 1; zeros where there is no shared expert. Errors:
    ``ValueError`` where the gate is missing, or given although not configured.
    """
    if config.gated != (inputs.gate is not None):
        raise ValueError(
            f"Expected gate to be {'given' if config.gated else 'None'} for "
            f"gated={config.gated} but got {'None' if inputs.gate is None else 'an array'}"
        )
    x = inputs.hidden.astype(np.float64)
    if config.kind == "none":
        return np.zeros_like(x)
    with np.errstate(all="ignore"):
        gate, up = x @ inputs.gate_proj.T.astype(np.float64), x @ inputs.up_proj.T
        output = (gate * sigmoid(gate) * up) @ inputs.down_proj.T.astype(np.float64)
        return output if inputs.gate is None else output * sigmoid(x @ inputs.gate.T)
