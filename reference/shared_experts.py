"""Shared experts: what every token gets beside its routed experts (docs/spec/shared-experts.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from moe_routing.reference.config import require_choice
from moe_routing.reference.formats import INPUT_FORMATS, Floats
from moe_routing.reference.inputs import convert
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
        sizes: dict[str, int] = {"1": 1}
        for name, letters in _SHAPES.items():
            value = getattr(self, name)
            if value is not None:
                self._check(name, convert(name, np.asarray(value), np.float32), letters, sizes)

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the arrays that are present, by field name."""
        values = {name: getattr(self, name) for name in _SHAPES}
        return {name: value for name, value in values.items() if value is not None}

    def _check(
        self, name: str, array: npt.NDArray[np.float32], letters: str, sizes: dict[str, int]
    ) -> None:
        shape = tuple(sizes.setdefault(x, n) for x, n in zip(letters, array.shape, strict=False))
        if array.ndim != len(letters) or array.shape != shape:
            raise ValueError(
                f"Expected {name} of shape [{', '.join(letters)}] (seen {sizes}) "
                f"but got {array.shape}"
            )
        if 0 in (sizes.get("H"), sizes.get("I")):
            raise ValueError(f"Cannot have {name} of shape {array.shape}: only T may be empty")
        if not INPUT_FORMATS[self.dtype].represents(array).all():
            raise ValueError(f"Cannot have {name} with values that dtype={self.dtype!r} rounds")
        array = array.view()
        array.flags.writeable = False
        object.__setattr__(self, name, array)


def shared_contribution(config: SharedExpertConfig, inputs: SharedExpertInputs) -> Floats:
    """Return what the shared expert adds to the block's output, ``[T, H]`` in float64.

    ``down(silu(gate_proj x) * up_proj x)``, times ``sigmoid(gate x)`` where gated, added
    to the routed sum with weight 1; zeros where there is no shared expert. Errors:
    ``ValueError`` where the gate is missing or not wanted.
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
        return output * sigmoid(x @ inputs.gate.T) if config.gated else output
