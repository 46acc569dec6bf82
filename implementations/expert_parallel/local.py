"""What the adapters of one rank have in common: own experts, tensors, and gradients' places."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.formats import Ids

if TYPE_CHECKING:
    from torch import Tensor


def own_experts(
    config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
) -> tuple[ExpertsConfig, ExpertsInputs]:
    """Return a call of the rank's own experts, without tokens: what its module is built of."""
    held = placement.local(rank)
    arrays: dict[str, Any] = {n: a[held] for n, a in inputs.arrays().items() if n in OF_EXPERTS}
    none = {name: getattr(inputs, name)[:0] for name in ("hidden", "expert_ids", "weights")}
    return replace(config, num_experts=held.size), replace(inputs, **arrays, **none)


def routed_tensors(
    inputs: ExpertsInputs, device: str, *, weights: str = "float32"
) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states, ids and routing weights, these of a dtype of their own."""
    given = {"hidden": inputs.dtype, "expert_ids": "int64", "weights": weights}
    hidden, ids, factors = (
        torch_tensor(name, np.asarray(getattr(inputs, name)), dtype=dtype, device=device)
        for name, dtype in given.items()
    )
    return hidden, ids, factors


def spread(found: dict[str, Tensor], held: Ids, experts: int) -> dict[str, Tensor]:
    """Return gradients by name, those of a rank's own experts in arrays of all."""
    made = {}
    for name, each in found.items():
        if name in OF_EXPERTS:
            whole = each.new_zeros(experts, *each.shape[1:])
            whole[held.tolist()] = each
            made[name] = whole
        else:
            made[name] = each
    return made
