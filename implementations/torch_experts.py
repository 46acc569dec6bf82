"""The experts of a layer in eager PyTorch, one expert after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from moe_routing.reference import ExpertsConfig
from moe_routing.reference.activations import CLAMPED

if TYPE_CHECKING:
    from torch import Tensor

Given = dict[str, "Tensor"]


def run_experts(config: ExpertsConfig, given: Given) -> Tensor:
    """Return the weighted sum ``[T, H]``; only routes with a weight that is not 0 are run."""
    import torch

    output = torch.zeros_like(given["hidden"])
    for expert, tokens, slots in _routed(config, given["expert_ids"], given["weights"]):
        weight = given["weights"][tokens, slots, None]
        x = given["hidden"][tokens]
        if config.weight_on == "input":
            answer = _answer(config, given, expert, x * weight)
        else:
            answer = _answer(config, given, expert, x) * weight
        output.index_add_(0, tokens, answer)
    return output


def _routed(
    config: ExpertsConfig, ids: Tensor, weights: Tensor
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield each expert that is to run, with the tokens and slots of its routes, in their order."""
    import torch

    idle = (weights == 0) & (config.weight_on == "output")  # 0 times infinity is NaN
    running = ids.masked_fill(idle | (ids < 0), -1).flatten()
    order = running.argsort(stable=True)
    absent, *counts = torch.bincount(running + 1, minlength=1).tolist()
    tokens, slots = order // ids.shape[1], order % ids.shape[1]
    first = absent
    for expert, count in enumerate(counts):
        if count:
            rows = slice(first, first + count)
            yield expert, tokens[rows], slots[rows]
            first += count


def _answer(config: ExpertsConfig, given: Given, expert: int, x: Tensor) -> Tensor:
    """Return what one expert makes of ``x [N, H]``."""
    up = _linear(given, "up", expert, x)
    if config.gated:
        inner = _gated(config, _linear(given, "gate", expert, x), up)
    else:
        inner = _activated(config, up)
    return _linear(given, "down", expert, inner)


def _linear(given: Given, name: str, expert: int, x: Tensor) -> Tensor:
    import torch

    bias = given.get(f"{name}_bias")
    return torch.nn.functional.linear(
        x, given[f"{name}_weight"][expert], None if bias is None else bias[expert]
    )


def _gated(config: ExpertsConfig, gate: Tensor, up: Tensor) -> Tensor:
    if config.activation != CLAMPED:
        return _activated(config, gate) * up
    gate, up = gate.clamp(max=config.limit), up.clamp(-config.limit, config.limit)
    return gate * (config.alpha * gate).sigmoid() * (up + 1)


def _activated(config: ExpertsConfig, x: Tensor) -> Tensor:
    import torch

    F = torch.nn.functional
    if config.activation in ("gelu", "gelu-tanh"):
        return F.gelu(x, approximate="tanh" if config.activation == "gelu-tanh" else "none")
    return F.silu(x) if config.activation == "silu" else F.relu(x)
