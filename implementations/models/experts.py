"""What an experts module of a model computes, and its matrices, read off the module itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.experts.unpacking import halves
from moe_routing.implementations.models.arrays import tensors_of
from moe_routing.reference import ExpertsConfig
from moe_routing.reference.activations import CLAMPED

if TYPE_CHECKING:
    from torch import Tensor

Matrices = dict[str, "Tensor"]


class NotKnown(Exception):
    """An experts module that is not judged; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """An experts module: what it computes, and its matrices by the names of ``ExpertsInputs``.

    ``split`` takes apart an array of one of its own parameters, by name, the same way.
    ``identities`` experts after the last return what they are given; ``limit`` clamps gates.
    """

    config: ExpertsConfig
    matrices: Matrices
    split: Callable[[str, Any], Mapping[str, Any]]
    parameters: Mapping[str, Tensor]
    identities: int = 0
    limit: float = float("inf")


def held(experts: Any) -> Held:
    """Return what a module computes. Errors: ``NotKnown``."""
    own = tensors_of(experts)
    if "mlp.w1" in own and "mlp.v1" in own:
        return _held(experts, own, _of_flat(experts), gate=experts.mlp.activation_fn)
    if "expert_0.wi.weight" in own:
        return _of_lists(experts, own)
    name = type(experts).__name__
    if "down_proj" not in own or not {"gate_up_proj", "up_proj"} & set(own):
        raise NotKnown(f"{name} has no gate_up_proj (or up_proj) and down_proj of its own")
    if getattr(experts, "has_post_expert_norm", False):
        raise NotKnown(f"{name} normalises what each expert answers")
    return _held(experts, own, _of_packed(experts), gate=None)


def _held(
    experts: Any, own: Matrices, split: Callable[[str, Any], Mapping[str, Any]], gate: Any
) -> Held:
    matrices: Matrices = {}
    for name, tensor in own.items():
        if name.startswith("_"):
            continue
        matrices |= split(name, tensor)
    total, gated = len(matrices["down_weight"]), "gate_weight" in matrices
    config = ExpertsConfig(num_experts=total, gated=gated, **_activation(experts, gate))
    return Held(
        config=config,
        matrices=matrices,
        split=split,
        parameters=own,
        identities=int(getattr(experts, "zero_expert_num", 0) or 0),
        limit=float("inf") if config.activation == CLAMPED else limit_of(experts),
    )


def _of_packed(experts: Any) -> Callable[[str, Any], Mapping[str, Any]]:
    """Return what splits ``gate_up_proj``, ``up_proj``, ``down_proj`` and their biases."""
    turned = bool(getattr(experts, "is_transposed", False)) or _is_one_of(experts, _TURNED)
    joined = bool(getattr(experts, "is_concatenated", True))
    plain = {"up_proj": "up_weight", "down_proj": "down_weight", "down_proj_bias": "down_bias"}
    plain["up_proj_bias"] = "up_bias"

    def split(name: str, whole: Any) -> Mapping[str, Any]:
        each = whole.transpose(1, 2) if turned and whole.dim() == 3 else whole
        if name.startswith("gate_up_proj"):
            kind = "bias" if name.endswith("bias") else "weight"
            gate, up = halves(each, not joined)
            return {f"gate_{kind}": gate, f"up_{kind}": up}
        return {plain[name]: each} if name in plain else {}

    return split


def _of_flat(experts: Any) -> Callable[[str, Any], Mapping[str, Any]]:
    """Return what splits matrices that lie one below the other, ``[E * F, H]``."""
    names = {"mlp.w1": "gate_weight", "mlp.v1": "up_weight", "mlp.w2": "down_weight"}

    def split(name: str, whole: Any) -> Mapping[str, Any]:
        if name not in names:
            return {}
        each = whole.reshape(experts.num_experts, -1, whole.shape[-1])
        return {names[name]: each.transpose(1, 2) if name == "mlp.w2" else each}

    return split


def _of_lists(experts: Any, own: Matrices) -> Held:
    """Return experts that are modules of their own, with two matrices each."""
    import torch

    names = {"wi.weight": "up_weight", "wo.weight": "down_weight"}
    matrices = {
        names[part]: torch.stack([own[f"expert_{e}.{part}"] for e in range(len(experts))])
        for part in names
    }
    activation = _activation(experts, experts["expert_0"].act)
    config = ExpertsConfig(num_experts=len(experts), gated=False, **activation)
    return Held(config=config, matrices=matrices, split=lambda name, whole: {}, parameters={})


def _activation(experts: Any, given: Any) -> dict[str, Any]:
    """Return the activation of a module, and its clamp. Errors: ``NotKnown``."""
    name = type(experts).__name__
    if _is_one_of(experts, _CLAMPED):
        return {
            "activation": CLAMPED,
            "alpha": _number(experts, ("alpha", "swiglu_alpha")),
            "limit": _number(experts, _LIMITS),
        }
    gate = getattr(experts, "_apply_gate", None)
    made_by = getattr(gate, "__module__", "")
    if made_by == type(experts).__module__ and not _is_one_of(experts, _USUAL):
        raise NotKnown(f"{name} has a gate of its own")
    function = given if given is not None else getattr(experts, "act_fn", None)
    if function is None and _is_one_of(experts, _USUAL):
        return {"activation": "silu"}
    if (known := named(function)) is None:
        kind = getattr(function, "__name__", type(function).__name__)
        raise NotKnown(f"{name} has the activation {kind}, which the specification lacks")
    return {"activation": known}


_CLAMPED = ("GptOssExperts", "OpenAIPrivacyFilterExperts", "MiniMaxM3VLExperts")
_USUAL = (
    "BeamExperts",
    "DeepseekV4Experts",
    "Glm5NextTextExperts",
    "HYV4Experts",
    "Step3p7Experts",
)
"""The classes with a gate of their own that is the usual one, below a limit."""

_TURNED = ("Llama4TextExperts",)
_LIMITS = ("limit", "swiglu_limit")


def limit_of(module: Any) -> float:
    """Return the number at which a module clamps its gate; infinity where it does not."""
    return _number(module, _LIMITS, float("inf"))


def _number(module: Any, names: tuple[str, ...], default: float = 0.0) -> float:
    found = next((getattr(module, each, None) for each in names if hasattr(module, each)), None)
    return default if found is None else float(found)


def _is_one_of(module: Any, names: tuple[str, ...]) -> bool:
    return any(each.__name__ in names for each in type(module).__mro__)


def named(function: Any) -> str | None:
    """Return the name in the specification of an activation, a module or a function."""
    kind = getattr(function, "__name__", type(function).__name__)
    if kind == "GELU" and getattr(function, "approximate", "none") == "tanh":
        return "gelu-tanh"
    if kind == "GELUActivation":
        return "gelu"
    return _FUNCTIONS.get(kind)


_FUNCTIONS = {
    "SiLU": "silu",
    "SiLUActivation": "silu",
    "silu": "silu",
    "ReLU": "relu",
    "relu": "relu",
    "GELU": "gelu",
    "gelu": "gelu",
    "GELUTanh": "gelu-tanh",
    "PytorchGELUTanh": "gelu-tanh",
}
