"""A layer whose experts are spread over ranks, in eager PyTorch: sent, run there, sent back."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.tensors import torch_experts_inputs
from moe_routing.implementations.torch_experts import run_experts
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement, computed_by
from moe_routing.reference.experts import OF_EXPERTS

if TYPE_CHECKING:
    from torch import Tensor


def run_on_rank(
    config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, device: str = "cpu"
) -> Tensor:
    """Return the output ``[T, H]`` of this rank's tokens; every rank is called at once.

    Each route is sent to the rank of its expert as a row, and its answer comes back to be added.
    """
    import torch

    given = torch_experts_inputs(inputs, device)
    homes = torch.from_numpy(computed_by(inputs.routes, placement)).to(device).flatten()
    order = torch.argsort(homes, stable=True)
    order = order[homes[order] >= 0]  # absent routes stay where they are
    tokens = order // inputs.top_k
    sent = torch.bincount(homes[order], minlength=placement.num_ranks)
    received = torch.empty_like(sent)
    torch.distributed.all_to_all_single(received, sent)
    there, here = sent.tolist(), received.tolist()
    ids = given["expert_ids"].flatten()[order]
    heard = ids.new_empty(sum(here))
    torch.distributed.all_to_all_single(heard, ids, here, there)
    weights = given["weights"].flatten()[order, None]
    # One exchange of both: backward passes must call the same ones, in the same order.
    rows = _moved(torch.cat([given["hidden"][tokens], weights], dim=1), here, there)
    answers = _answers(config, given, rows, heard)
    back = _moved(answers, there, here)
    return torch.zeros_like(given["hidden"]).index_add(0, tokens, back)


def _answers(config: ExpertsConfig, given: dict[str, Tensor], rows: Tensor, ids: Tensor) -> Tensor:
    """Return what the experts of this rank make of ``rows [N, H + 1]``, each with its weight."""
    import torch

    hidden, weights = rows[:, :-1], rows[:, -1:]
    matrices = {name: each for name, each in given.items() if name in OF_EXPERTS}
    call = {**matrices, "hidden": hidden, "weights": weights, "expert_ids": ids[:, None]}
    # A rank that no row has come to has its place in the exchange of the backward pass, too.
    return torch.cat([run_experts(config, call), hidden[:0]])


def _moved(rows: Tensor, received: list[int], sent: list[int]) -> Tensor:
    """Return the rows that come from all ranks, ``received [R]`` of them, for those sent."""
    moved: Tensor = _exchange().apply(rows, received, sent)
    return moved


@cache
def _exchange() -> Any:
    """Return an all-to-all whose gradient goes the other way."""
    import torch

    def exchanged(rows: Tensor, received: list[int], sent: list[int]) -> Tensor:
        output = rows.new_empty(sum(received), rows.shape[1])
        torch.distributed.all_to_all_single(output, rows.contiguous(), received, sent)
        return output

    class Exchange(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, rows: Tensor, received: list[int], sent: list[int]) -> Tensor:
            ctx.sizes = sent, received
            return exchanged(rows, received, sent)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            return exchanged(gradient, *ctx.sizes), None, None

    return Exchange
