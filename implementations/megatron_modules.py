"""Megatron-Core's modules, imported when they are called for, and its form of routes."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from moe_routing.implementations.protocol import missing
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import Routes

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "python -m pip install megatron-core==0.16.1 tqdm"


def core_module(name: str) -> ModuleType:
    """Import a module of Megatron-Core. Errors: ``BackendMissing``."""
    try:
        return importlib.import_module(f"megatron.core.{name}")
    except ModuleNotFoundError as error:
        raise missing("megatron-core", "megatron", error, INSTALL) from error


def moe_utils() -> ModuleType:
    """Import the module of its routing functions. Errors: ``BackendMissing``."""
    return core_module("transformer.moe.moe_utils")


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
