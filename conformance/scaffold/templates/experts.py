"""my-router, checked against the specification of MoE routing.

moe-routing check my_router.py:MyRouterAdapter --known known/my-router.toml
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from moe_routing.implementations import Capabilities, Computes, torch_experts_inputs
from moe_routing.reference import ExpertsConfig, ExpertsInputs

if TYPE_CHECKING:
    from torch import Tensor


# ---- Your experts: replace these functions with an import of yours. ----
def grouped_product(rows: Tensor, matrices: Tensor, counts: list[int]) -> Tensor:
    """Multiply the rows of each expert, which lie together, by the expert's matrix."""
    import torch

    ends = list(accumulate(counts))[:-1]
    parts = zip(torch.tensor_split(rows, ends), matrices, strict=True)
    return torch.cat([part @ matrix.T for part, matrix in parts])


def swiglu_experts(hidden: Tensor, ids: Tensor, weights: Tensor, *matrices: Tensor) -> Tensor:
    """Return the weighted sum of what the chosen experts make of each token, ``[T, H]``."""
    gate_weight, up_weight, down_weight = matrices
    order = ids.flatten().argsort(stable=True)
    tokens = order // ids.shape[1]
    counts = ids.flatten().bincount(minlength=len(up_weight)).tolist()
    rows = hidden[tokens]
    gate = grouped_product(rows, gate_weight, counts)
    inner = gate.sigmoid() * gate * grouped_product(rows, up_weight, counts)
    weight = weights.flatten()[order, None]
    outer = grouped_product(inner, down_weight, counts) * weight
    outer = outer.masked_fill(weight == 0, 0)  # also where the expert overflows
    return hidden.new_zeros(hidden.shape).index_add(0, tokens, outer)


# ---- Your experts end here. ----

# What your experts compute, and of which calls: absent=(False,) says that every slot has an
# expert. What is not named here is claimed whole: gated=(True, False), for example.
COMPUTES = Computes(
    activations=("silu",),
    gated=(True,),
    biases=(False,),
    weight_on=("output",),
    absent=(False,),
)


class MyRouterAdapter:
    """How the suite calls the experts: a name, what is claimed, and the call."""

    name = "my-router"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device  # `--device cuda` arrives here

    def capabilities(self) -> Capabilities:
        """Return what is claimed: this must work, and everything else must be refused."""
        return Capabilities(computes=COMPUTES)

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Call the experts, and return their own tensor as it is."""
        COMPUTES.require(config, inputs)  # raises Unsupported for what is not claimed
        x = torch_experts_inputs(inputs, self.device)
        weights = (x["gate_weight"], x["up_weight"], x["down_weight"])
        return swiglu_experts(x["hidden"], x["expert_ids"], x["weights"], *weights)
