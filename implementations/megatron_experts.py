"""Megatron-Core's experts, one MLP after another, between its permutation and its way back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.computes import Computes
from moe_routing.implementations.experts.unpacking import unpacked
from moe_routing.implementations.megatron_modules import core_module, maps_of, moe_utils
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.tensors import parameter, torch_tensor, without_graph
from moe_routing.implementations.torch_expert_gradients import torch_expert_gradients
from moe_routing.reference import ExpertsConfig, ExpertsInputs, gate_up, gate_up_bias
from moe_routing.reference.activations import PLAIN

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

COMPUTES = Computes(activations=tuple(PLAIN), weight_on=("output",), repeats=(False,))
"""What ``SequentialMLP`` computes: a routing map holds an expert once a token."""


class MegatronExperts(OnDevice):
    """``SequentialMLP`` between ``permute`` and ``unpermute``."""

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Permute, run the experts one by one, unpermute. Errors: as ``core_module``."""
        COMPUTES.require(config, inputs)
        utils, experts = moe_utils(), sequential_mlp(config, inputs, self.device)
        probs, routing_map = maps_of(inputs.routes, config.num_experts, self.device)
        hidden = torch_tensor("hidden", inputs.hidden, dtype=inputs.dtype, device=self.device)

        @without_graph
        def combined() -> Tensor:
            tokens, permuted, order = utils.permute(hidden, routing_map, probs)
            output, _ = experts(tokens, routing_map.sum(dim=0), permuted)
            made: Tensor = utils.unpermute(output, order, hidden.shape)
            return made

        return combined()

    expert_gradients = torch_expert_gradients

    def unpacked(self, inputs: ExpertsInputs, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return gradients by the names of ``inputs``, from those of each expert's layers."""
        return unpacked_mlps(inputs, found)


def sequential_mlp(config: ExpertsConfig, inputs: ExpertsInputs, device: str) -> Module:
    """Build ``SequentialMLP`` around the case's weights."""
    layers = core_module("tensor_parallel.layers")
    parts = core_module("transformer.mlp").MLPSubmodules(
        linear_fc1=layers.ColumnParallelLinear, linear_fc2=layers.RowParallelLinear
    )
    groups = SimpleNamespace(ep=None, expt_tp=None, expt_dp=None)
    experts = core_module("transformer.moe.experts")
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
    return core_module("transformer.transformer_config").TransformerConfig(
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
