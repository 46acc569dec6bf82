"""Megatron-Core's experts, one MLP after another: what they are built from, on one rank."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.computes import Computes
from moe_routing.implementations.experts.unpacking import unpacked
from moe_routing.implementations.tensors import parameter, torch_tensor
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Routes, gate_up, gate_up_bias
from moe_routing.reference.activations import PLAIN

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

COMPUTES = Computes(activations=tuple(PLAIN), weight_on=("output",), repeats=(False,))
"""What ``SequentialMLP`` computes: a routing map holds an expert once a token."""


def maps_of(routes: Routes, num_experts: int, device: str) -> tuple[Tensor, Tensor]:
    """Return the routes as Megatron has them: weights and booleans, ``[T, E]`` each."""
    import torch

    ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=device)
    weights = torch_tensor("weights", routes.weights, dtype="float32", device=device)
    token, slot = (ids >= 0).nonzero(as_tuple=True)
    at = (token, ids[token, slot])
    probs = weights.new_zeros((routes.num_tokens, num_experts))
    probs[at] = weights[token, slot]
    routing_map = torch.zeros_like(probs, dtype=torch.bool)
    routing_map[at] = True
    return probs, routing_map


def sequential_mlp(config: ExpertsConfig, inputs: ExpertsInputs, device: str) -> Module:
    """Build ``SequentialMLP`` around the case's weights."""
    layers = _core("tensor_parallel.layers")
    parts = _core("transformer.mlp").MLPSubmodules(
        linear_fc1=layers.ColumnParallelLinear, linear_fc2=layers.RowParallelLinear
    )
    groups = SimpleNamespace(ep=None, expt_tp=None, expt_dp=None)
    experts = _core("transformer.moe.experts")
    settings = _settings(config, inputs)
    made: Module = experts.SequentialMLP(config.num_experts, settings, parts, pg_collection=groups)
    for number in range(config.num_experts):
        mlp = made.get_submodule(f"local_experts.{number}")
        _fill(mlp, inputs, number, device)
    return made


def _settings(config: ExpertsConfig, inputs: ExpertsInputs) -> Any:
    from torch.nn import functional as F

    activations = {
        "silu": F.silu,
        "gelu": F.gelu,
        "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
        "relu": F.relu,
    }
    return _core("transformer.transformer_config").TransformerConfig(
        num_layers=1,
        num_attention_heads=1,
        hidden_size=inputs.hidden_size,
        ffn_hidden_size=inputs.width,
        moe_ffn_hidden_size=inputs.width,
        num_moe_experts=config.num_experts,
        add_bias_linear=inputs.has_biases,
        gated_linear_unit=config.gated,
        activation_func=activations[config.activation],
        use_cpu_initialization=True,
        perform_initialization=False,
    )


def _fill(mlp: Module, inputs: ExpertsInputs, number: int, device: str) -> None:
    """Give an expert its weights and biases; a bias that is missing is 0."""
    import torch

    gated = inputs.gate_weight is not None
    arrays = {
        "linear_fc1.weight": gate_up(inputs) if gated else inputs.up_weight,
        "linear_fc1.bias": gate_up_bias(inputs) if gated else inputs.up_bias,
        "linear_fc2.weight": inputs.down_weight,
        "linear_fc2.bias": inputs.down_bias,
    }
    for name, array in arrays.items():
        layer, _, kind = name.partition(".")
        owner: Any = mlp.get_submodule(layer)
        owner.explicit_expert_comm = True  # as on a rank of many: its sums go nowhere from here
        if kind == "bias" and not inputs.has_biases:
            continue
        if array is None:
            tensor = torch.zeros_like(getattr(owner, kind), device=device)
            tensor = tensor.to(getattr(torch, inputs.dtype))
        else:
            tensor = torch_tensor(name, array[number], dtype=inputs.dtype, device=device)
        setattr(owner, kind, parameter(f"{name}.{number}", tensor))


def unpacked_mlps(inputs: ExpertsInputs, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return gradients by the names of ``inputs``, from those of each expert's layers."""
    import torch

    joined = {n: each for n, each in found.items() if n in ("hidden", "weights")}
    gated = inputs.gate_weight is not None
    for name, source in (
        ("linear_fc1.weight", "gate_up_proj" if gated else "up_proj"),
        ("linear_fc1.bias", "gate_up_proj_bias" if gated else "up_bias"),
        ("linear_fc2.weight", "down_proj"),
        ("linear_fc2.bias", "down_proj_bias"),
    ):
        parts = {int(n.rpartition(".")[2]): found[n] for n in found if n.startswith(f"{name}.")}
        if parts:
            none = torch.zeros_like(next(iter(parts.values())))
            rows = [parts.get(number, none) for number in range(inputs.num_experts)]
            joined[source] = torch.stack(rows)
    return unpacked(inputs, joined)


def _core(name: str) -> Any:
    return importlib.import_module(f"megatron.core.{name}")
