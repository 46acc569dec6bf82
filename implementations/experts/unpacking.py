"""Gradients of experts' weights as libraries store them, taken apart again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_routing.reference import EXPERT_GRADIENTS, ExpertsInputs

if TYPE_CHECKING:
    from torch import Tensor

Named = dict[str, "Tensor"]

_RENAMED = {"up_proj": "up_weight", "down_proj": "down_weight", "down_proj_bias": "down_bias"}


def unpacked(
    inputs: ExpertsInputs, found: Named, *, interleaved: bool = False, transposed: bool = False
) -> Named:
    """Return gradients by the names of ``inputs``, from those of a module's parameters.

    ``gate_up_proj`` and its bias are gate and up in one, whose rows follow each other, or take
    turns where ``interleaved``; matrices lie ``[E, in, out]`` where ``transposed``. A gradient of
    what the call has none of, such as a bias that the module needs, is left out.
    """
    made: Named = {}
    for name, each in found.items():
        turned = each.transpose(1, 2) if transposed and each.dim() == 3 else each
        if name.startswith("gate_up_proj"):
            kind = "bias" if name.endswith("bias") else "weight"
            made[f"gate_{kind}"], made[f"up_{kind}"] = halves(turned, interleaved)
        else:
            made[_RENAMED.get(name, name)] = turned
    there = inputs.arrays()
    return {name: each for name, each in made.items() if name in there and name in EXPERT_GRADIENTS}


def halves(joined: Tensor, interleaved: bool) -> tuple[Tensor, Tensor]:
    """Return gate and up, of an array whose second axis holds both."""
    if interleaved:
        return joined[:, 0::2], joined[:, 1::2]
    gate, up = joined.chunk(2, dim=1)
    return gate, up
