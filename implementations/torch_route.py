"""Routing in eager PyTorch, stage by stage, computed in the precision that the spec permits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Groups, RouterConfig, Routing

if TYPE_CHECKING:
    from torch import Tensor


def route(config: RouterConfig, given: TorchInputs) -> Routing:
    """Choose the experts of each token, and weigh them."""
    logits = _logits(config, given)
    operated = _logit_op(config, logits)
    scores = _scores(config, operated)
    biased = scores.float()
    if given.selection_bias is not None:
        biased = biased + given.selection_bias
    kept = _kept_experts(config.groups, biased)
    if given.expert_table is not None:
        ids = given.expert_table[given.token_ids]
    else:
        competing = biased.masked_fill(~kept, config.groups.fill) if config.groups else biased
        ids = _best(config, competing)
    weights = _weights(config, given, _gathered(config, operated, scores, kept, ids), ids)
    weights, ids = _with_shared_slots(config, weights, ids)
    return Routing(weights=weights, expert_ids=ids, logits=logits)


def _with_shared_slots(config: RouterConfig, weights: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Put the shared experts behind the routed ones, each with its own weight."""
    import torch

    shared = config.shared_slots
    if shared is None:
        return weights, ids
    behind = torch.arange(shared.count, device=ids.device) + config.num_experts
    more = weights.new_full((len(weights), shared.count), shared.weight)
    return torch.cat([weights, more], dim=1), torch.cat([ids, behind.expand(more.shape)], dim=1)


def weigh(config: RouterConfig, given: TorchInputs, ids: Tensor) -> Routing:
    """Weigh given experts, of which -1 weighs 0; no expert competes."""
    import torch

    present, at = ids >= 0, ids.clamp(min=0)
    logits = _logits(config, given)
    operated = _logit_op(config, logits)
    scores = _scores(config, operated)
    if config.weights_from == "softmax_of_selected":
        chosen = operated.gather(1, at).masked_fill(~present, float("-inf"))
        gathered = torch.nn.functional.softmax(chosen, dim=-1)
    else:
        kept = torch.ones_like(scores, dtype=torch.bool)
        gathered = _gathered(config, operated, scores, kept, at)
    weights = _weights(config, given, gathered.masked_fill(~present, 0.0), at)
    return Routing(weights=weights.masked_fill(~present, 0.0), expert_ids=ids, logits=logits)


def _logits(config: RouterConfig, given: TorchInputs) -> Tensor:
    import torch
    from torch.nn import functional as F

    dtype = given.hidden.dtype if config.logits_dtype == "input" else torch.float32
    dtype = torch.promote_types(dtype, given.gate_weight.dtype)  # a float32 gate is not rounded
    hidden = given.hidden
    if config.input_norm is not None:
        size = hidden.shape[1]
        hidden = F.rms_norm(hidden.float(), (size,), eps=config.input_norm.eps) * size**-0.5
        if given.hidden_scale is not None:
            hidden = hidden * given.hidden_scale.float()
    hidden = hidden.to(dtype)
    bias = None if given.gate_bias is None else given.gate_bias.to(dtype)
    logits = F.linear(hidden, given.gate_weight.to(dtype), bias)
    if given.gate_delta is not None:
        logits = logits + F.linear(hidden, given.gate_delta.to(dtype))
    return logits


def _logit_op(config: RouterConfig, logits: Tensor) -> Tensor:
    operated = logits if config.scores_dtype == "input" else logits.float()
    if config.logit_multiplier != 1.0:
        operated = operated * config.logit_multiplier
    if config.logit_softcap is not None:
        operated = (operated / config.logit_softcap).tanh() * config.logit_softcap
    return operated


def _scores(config: RouterConfig, operated: Tensor) -> Tensor:
    from torch.nn import functional as F

    match config.score:
        case "softmax":
            return F.softmax(operated, dim=-1)
        case "sigmoid":
            return operated.sigmoid()
        case "sqrtsoftplus":
            return F.softplus(operated).sqrt()
        case _:
            return operated


def _kept_experts(groups: Groups | None, biased: Tensor) -> Tensor:
    import torch

    if groups is None or groups.from_each:
        return torch.ones_like(biased, dtype=torch.bool)
    size = biased.shape[1] // groups.count
    grouped = biased.reshape(len(biased), groups.count, size)
    group_scores = grouped.topk(min(groups.top, size), dim=-1).values.sum(dim=-1)
    best = group_scores.topk(groups.kept, dim=-1).indices
    kept = torch.zeros_like(group_scores, dtype=torch.bool).scatter(1, best, True)
    return kept.repeat_interleave(size, dim=1)


def _best(config: RouterConfig, competing: Tensor) -> Tensor:
    """Return the ids of the K best, or of as many of each group."""
    import torch

    groups = config.groups
    if groups is None or not groups.from_each:
        return competing.topk(config.top_k, dim=-1).indices
    grouped = competing.reshape(len(competing), groups.count, config.experts_per_group)
    ids = grouped.topk(config.top_k // groups.count, dim=-1).indices
    first = torch.arange(groups.count, device=ids.device) * config.experts_per_group
    return (ids + first[:, None]).reshape(len(ids), config.top_k)


def _gathered(
    config: RouterConfig, operated: Tensor, scores: Tensor, kept: Tensor, ids: Tensor
) -> Tensor:
    from torch.nn import functional as F

    match config.weights_from:
        case "softmax_of_selected":
            return F.softmax(operated.gather(1, ids), dim=-1)
        case "sigmoid_of_selected":
            return operated.gather(1, ids).sigmoid()
        case "masked_scores":
            return scores.masked_fill(~kept, 0.0).gather(1, ids)
        case _:
            return scores.gather(1, ids)


def _weights(config: RouterConfig, given: TorchInputs, gathered: Tensor, ids: Tensor) -> Tensor:
    from torch.linalg import vector_norm

    weights, rule = gathered.float(), config.renormalize
    if rule is not None:
        norm = vector_norm(weights, ord=rule.order, dim=-1, keepdim=True)
        weights = weights / (norm + rule.eps).clamp(min=rule.floor)
    weights = weights * config.scale
    if given.per_expert_scale is not None:
        weights = weights * given.per_expert_scale.float()[ids]
    return weights.to(given.hidden.dtype) if config.weights_dtype == "input" else weights
