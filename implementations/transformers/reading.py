"""Reading the answer off what a router returned and what the experts were handed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.layouts import DenseRouting
from moe_routing.reference import RouterConfig, Routing

if TYPE_CHECKING:
    from torch import Tensor

Read = Callable[[RouterConfig, Any, tuple[Any, ...]], Routing | DenseRouting]


def _experts(config: RouterConfig, returned: Any, heard: tuple[Any, ...]) -> Routing:
    """Experts get (hidden states, ids, weights); the router returns the logits first, or alone."""
    logits = returned[0] if isinstance(returned, tuple) else returned
    return Routing(weights=heard[2], expert_ids=heard[1], logits=_flat(config, logits))


def _divided(config: RouterConfig, returned: Any, heard: tuple[Any, ...]) -> Routing:
    """As ``experts``, with weights divided by K, which the block multiplies back afterwards."""
    return Routing(weights=heard[2] * config.top_k, expert_ids=heard[1], logits=returned[0])


def _router(config: RouterConfig, returned: Any, heard: tuple[Any, ...]) -> Routing:
    """The router returns (probabilities, weights, ids)."""
    return Routing(weights=returned[1], expert_ids=returned[2])


def _dense(config: RouterConfig, returned: Any, heard: tuple[Any, ...]) -> DenseRouting:
    """The router returns (weights [T, E], logits [T, E]), 0 where an expert is not selected."""
    return DenseRouting(weights=returned[0], logits=returned[1])


def completed(answer: Routing | DenseRouting, top_k: int) -> Routing:
    """Return an answer with the K ids of every token: of a dense one the ids that show.

    Where fewer than K do, since the weight of a selected expert is 0 as well, the greatest of the
    remaining logits are read as selected.
    """
    if isinstance(answer, Routing):
        return answer
    scores, logits = answer.weights, answer.logits
    ids = logits.masked_fill(scores > 0, float("inf")).topk(top_k, dim=-1).indices
    return Routing(weights=scores.gather(1, ids), expert_ids=ids, logits=logits)


def _sorted(config: RouterConfig, returned: Any, heard: tuple[Any, ...]) -> Routing:
    """The router returns the T * K routes in the order of experts, with each expert's count."""
    import torch

    order, _, sorted_weights, counts, logits = returned
    sorted_ids = torch.arange(len(counts), device=order.device).repeat_interleave(
        torch.tensor(counts, device=order.device)
    )
    ids, weights = torch.empty_like(order), torch.empty_like(sorted_weights)
    ids[order], weights[order] = sorted_ids, sorted_weights
    rows = (-1, config.top_k)
    return Routing(weights=weights.view(rows), expert_ids=ids.view(rows), logits=logits)


def _one_hot(config: RouterConfig, returned: Any, heard: tuple[Any, ...]) -> Routing:
    """Experts get (hidden states, one-hot ids [T, 1, E], weights [T, 1])."""
    logits = _flat(config, returned[2])
    return Routing(weights=heard[2], expert_ids=heard[1].argmax(dim=-1), logits=logits)


def _flat(config: RouterConfig, logits: Tensor) -> Tensor:
    return logits.reshape(-1, config.num_experts)


READERS: dict[str, Read] = {
    "experts": _experts,
    "divided": _divided,
    "router": _router,
    "dense": _dense,
    "sorted": _sorted,
    "one-hot": _one_hot,
}
"""How the answer is read, by ``Row.reads``."""
