"""Gradients of any torch experts: their own forward, run on tensors that require them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.backward import gradients_of
from moe_routing.implementations.tensors import differentiating
from moe_routing.reference import ExpertGradients, ExpertsConfig, ExpertsInputs, Placement


def torch_expert_gradients(
    adapter: Any, config: ExpertsConfig, inputs: ExpertsInputs, cotangent: npt.NDArray[np.float32]
) -> ExpertGradients:
    """Return the gradients of ``sum output[t, h] * cotangent[t, h]`` by torch's autograd.

    One line makes an adapter of torch experts differentiable:
    ``expert_gradients = torch_expert_gradients``. It runs the adapter's own ``experts``, whose
    tensors (of ``torch_experts_inputs``) require gradients now, and goes back from its output. An
    adapter that lays weights out in another way has a method ``unpacked``, which takes gradients
    by the names of its own tensors and returns those of ``ExpertsInputs``. An output without a
    graph has no gradient at all: every one is None. Errors: those of ``experts``, and of the
    backward pass.
    """
    return _gradients(adapter, lambda: adapter.experts(config, inputs), inputs, cotangent)


def torch_rank_gradients(
    adapter: Any,
    config: ExpertsConfig,
    inputs: ExpertsInputs,
    placement: Placement,
    rank: int,
    cotangent: npt.NDArray[np.float32],
) -> ExpertGradients:
    """Return a rank's gradients by torch's autograd, where all ranks go back at once.

    One line makes an adapter with ``on_rank`` differentiable:
    ``rank_gradients = torch_rank_gradients``. All else is as in ``torch_expert_gradients``.
    """
    call = config, inputs, placement, rank
    return _gradients(adapter, lambda: adapter.on_rank(*call), inputs, cotangent)


def _gradients(
    adapter: Any,
    run: Callable[[], Any],
    inputs: ExpertsInputs,
    cotangent: npt.NDArray[np.float32],
) -> ExpertGradients:
    """Return the gradients of what ``run`` makes of tensors of these inputs."""
    import torch

    with differentiating() as leaves, torch.enable_grad():
        output = run()
    if not output.requires_grad or not leaves:
        return ExpertGradients()
    given = torch.from_numpy(np.array(cotangent)).to(output.device, output.dtype)
    found = gradients_of(output, [*leaves.values()], given)
    named = dict(zip(leaves, found, strict=True))
    there = {name: each for name, each in named.items() if each is not None}
    return ExpertGradients(**_unpacked(adapter, inputs, there))


def _unpacked(adapter: Any, inputs: ExpertsInputs, found: dict[str, Any]) -> Mapping[str, Any]:
    if not hasattr(adapter, "unpacked"):
        return found
    named: Mapping[str, Any] = adapter.unpacked(inputs, found)
    return named
