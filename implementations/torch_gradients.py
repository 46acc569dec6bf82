"""Gradients of any torch router: its own route, run on tensors that require them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.backward import gradients_of
from moe_routing.implementations.differentiates import RouterGradients
from moe_routing.implementations.layouts import AnyRouting, DenseRouting, FlatRouting, RoutingMap
from moe_routing.implementations.tensors import differentiating
from moe_routing.reference import RouterConfig, RouterInputs

if TYPE_CHECKING:
    from torch import Tensor


def torch_gradients(
    adapter: Any, config: RouterConfig, inputs: RouterInputs, cotangent: npt.NDArray[np.float32]
) -> RouterGradients:
    """Return the gradients of ``sum w[t, k] * cotangent[t, ids[t, k]]`` by torch's autograd.

    One line makes a torch adapter differentiable: ``gradients = torch_gradients``. It runs the
    adapter's own ``route``, whose tensors (of ``torch_inputs``) require gradients now, and goes
    back from its weights. Weights without a graph have no gradient at all: every one is None.
    Errors: those of ``route``, and of the backward pass.
    """
    import torch

    with differentiating() as leaves, torch.enable_grad():
        routing = adapter.route(config, inputs)
    weights, given = _weights(routing), _laid_like(cotangent, _at_weights(routing, cotangent))
    own = {"logits": routing.logits} if _differentiable(routing.logits) else {}
    sources = {name: each for name, each in {**leaves, **own}.items() if each.requires_grad}
    if not weights.requires_grad or not sources:
        return RouterGradients(routing=routing)
    found = gradients_of(weights, [*sources.values()], given.to(weights.dtype))
    shapes = inputs.arrays()
    return RouterGradients(
        routing=routing,
        **{
            name: each if each is None or name == "logits" else each.reshape(shapes[name].shape)
            for name, each in zip(sources, found, strict=True)
        },
    )


def _differentiable(tensor: Any) -> bool:
    return tensor is not None and bool(tensor.requires_grad)


def _weights(routing: AnyRouting) -> Tensor:
    """Return the weights of a routing in any layout, as they came."""
    names = {FlatRouting: "scores", RoutingMap: "probs"}
    weights: Tensor = getattr(routing, names.get(type(routing), "weights"))
    return weights


def _laid_like(cotangent: npt.NDArray[np.float32], given: Tensor) -> Tensor:
    """Return ``given`` spaced out in its rows and in its columns where ``cotangent`` is no rows.

    Autograd gives a backward pass gradients of any strides; a kernel that takes a pointer reads
    the NaN between them.
    """
    if cotangent.flags.c_contiguous or not given.shape[-1]:
        return given
    width = given.shape[-1]
    wide = given.new_full((*given.shape[:-1], 2 * width + 1), float("nan"))
    spaced = wide[..., : 2 * width : 2]
    spaced.copy_(given)
    return spaced


def _at_weights(routing: AnyRouting, cotangent: npt.NDArray[np.float32]) -> Tensor:
    """Return the cotangent of each weight, in the layout of the weights."""
    import torch

    dense = torch.from_numpy(np.array(cotangent)).to(_weights(routing).device)
    if isinstance(routing, DenseRouting):
        return dense  # a gradient of what is 0 for not being selected is masked by the router
    if isinstance(routing, FlatRouting):
        return dense[routing.token_indices.long(), routing.expert_indices.long()]
    on: Tensor = routing.routing_map if isinstance(routing, RoutingMap) else routing.expert_ids
    return dense * on if isinstance(routing, RoutingMap) else dense.gather(1, on.long())
