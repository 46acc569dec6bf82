"""Numbers for a model without weights: its routers and experts filled so that errors show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moe_routing.implementations.models.arrays import tensors_of
from moe_routing.implementations.models.finding import find_sites


def fill(model: Any, seed: int) -> None:
    """Fill the routers and experts of a model with random numbers, in place.

    A configuration's own are too kind: biases of 0, scales of 1, and logits so close together that
    every expert is as good. Gates get logits about as wide as those of trained models, selection
    biases a large offset with a small spread, as load balancing leaves them, and matrices keep the
    size of what they are given.
    """
    import torch

    made = torch.Generator().manual_seed(torch_seed(seed))
    with torch.no_grad():
        for site in find_sites(model)[0]:
            own = tensors_of(site.block)
            for name, field in site.row.arrays.items():
                if name in own and field in _FILLS:
                    _fill(own[name], _FILLS[field](own[name], made))
            for tensor in site.experts.parameters() if site.experts is not None else ():
                if tensor.dim() == 3:
                    _fill(tensor, _normal(tensor, made) * max(tensor.shape[1:]) ** -0.5)


def torch_seed(seed: int) -> int:
    """Return what torch takes for a seed, which may be any integer: it has 64 bits."""
    return seed % 2**64


def _fill(tensor: Any, values: Any) -> None:
    tensor.copy_(values.to(tensor.dtype))


def _normal(tensor: Any, made: Any) -> Any:
    import torch

    return torch.randn(tensor.shape, generator=made)


def _uniform(tensor: Any, made: Any) -> Any:
    import torch

    return 0.5 + torch.rand(tensor.shape, generator=made)


_FILLS: dict[str, Callable[[Any, Any], Any]] = {
    "gate_weight": lambda tensor, made: _normal(tensor, made) * tensor.shape[-1] ** -0.5,
    "gate_bias": lambda tensor, made: _normal(tensor, made) * 0.5,
    "selection_bias": lambda tensor, made: 6.75 + 0.25 * _uniform(tensor, made),
    "per_expert_scale": _uniform,
    "hidden_scale": _uniform,
}
