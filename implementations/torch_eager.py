"""The whole specification in eager PyTorch, computed in the precision that it permits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.shards import shard_of_experts
from moe_routing.implementations.tensors import (
    TorchInputs,
    torch_experts_inputs,
    torch_inputs,
    torch_layer_inputs,
    torch_shared_inputs,
    torch_tensor,
    without_graph,
)
from moe_routing.implementations.torch_expert_gradients import (
    torch_expert_gradients,
    torch_rank_gradients,
)
from moe_routing.implementations.torch_experts import run_experts
from moe_routing.implementations.torch_gradients import torch_gradients
from moe_routing.implementations.torch_on_rank import run_on_rank
from moe_routing.reference import (
    ExpertsConfig,
    ExpertsInputs,
    Groups,
    LayerConfig,
    LayerInputs,
    LayerResult,
    Padding,
    PermutationConfig,
    Placement,
    Recorded,
    RouterConfig,
    RouterInputs,
    Routes,
    Routing,
    SharedExpertConfig,
    SharedExpertInputs,
    SortedRoutes,
    check_inputs,
)
from moe_routing.reference.replay import forced_config

if TYPE_CHECKING:
    from torch import Tensor


_CAPABILITIES = Capabilities(
    claims=(Claim.whole(),),
    logits="routed",
    threads=True,
    permutes=Permutes(align=(1,), empty_takes=("nothing",)),
)


class TorchAdapter:
    """A plain PyTorch router, written as a model's author would."""

    name = "torch"
    wraps = "torch"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def capabilities(self) -> Capabilities:
        """Claim the whole spec; the logits returned are those routed."""
        return _CAPABILITIES

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Route in PyTorch. Errors: ``ValueError`` for a bad configuration."""
        return self.prepare(config, inputs)()

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Routing]:
        """Make the tensors of a call. Errors: as ``route``."""
        config = RouterConfig(**vars(config))
        check_inputs(config, inputs)
        given = torch_inputs(inputs, self.device)
        return without_graph(lambda: _route(config, given))

    def route_padded(self, config: RouterConfig, inputs: RouterInputs, padding: Padding) -> Routing:
        """Route all, then leave padding out. Errors: ``ValueError``."""
        import torch

        routing, told = self.route(config, inputs), padding.value
        if isinstance(told, int):
            lost = torch.arange(inputs.num_tokens, device=self.device) >= told
        else:
            mask = torch.from_numpy(told).to(self.device)
            lost = ~mask if padding.told == "valid" else mask
        return replace(
            routing,
            weights=routing.weights.masked_fill(lost[:, None], 0.0),
            expert_ids=routing.expert_ids.masked_fill(lost[:, None], -1),
        )

    def replay(self, config: RouterConfig, inputs: RouterInputs, recorded: Recorded) -> Routing:
        """Gather weights at the recorded experts. Errors: ``ValueError``."""
        if recorded.layer is None:
            return self.route(config, inputs)
        config = forced_config(RouterConfig(**vars(config)))
        recorded.check_fits(config, inputs)
        given = torch_inputs(inputs, self.device)
        ids = torch_tensor("forced_ids", recorded.ids, dtype="int64", device=self.device)
        held = recorded.forced_weights
        routing = without_graph(lambda: _replay(config, given, ids))()
        if held is None:
            return routing
        weights = torch_tensor("forced_weights", held, dtype="float32", device=self.device)
        return replace(routing, weights=weights.to(routing.weights.dtype))

    gradients = torch_gradients

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Route with sigmoid where there is a selection bias and with softmax where not."""
        score = "softmax" if inputs.selection_bias is None else "sigmoid"
        return self.route(RouterConfig(**{**vars(config), "score": score}), inputs)

    def shared_experts(
        self, config: SharedExpertConfig, inputs: SharedExpertInputs
    ) -> Tensor | None:
        """Return the shared expert's output, gated where the configuration says so."""
        import torch
        from torch.nn import functional as F

        if config.kind == "none":
            return None
        given = torch_shared_inputs(inputs, self.device)
        with torch.no_grad():
            output = swiglu(given["hidden"], given)
            if config.gated:
                output = F.linear(given["hidden"], given["gate"]).sigmoid() * output
            return output

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedRoutes:
        """Sort routes by expert in PyTorch, unpadded. Errors: ``Unsupported``."""
        import torch

        _CAPABILITIES.permutes.require(config, routes)
        tensors = {
            name: torch_tensor(name, array, dtype=str(array.dtype), device=self.device)
            for name, array in routes.arrays().items()
        }
        ids = tensors["expert_ids"].flatten()
        order = ids.argsort(stable=True)[int((ids < 0).sum()) :]  # absent routes come first
        counts = torch.bincount(ids[order], minlength=config.num_experts)
        inverse = torch.full_like(ids, -1)
        inverse[order] = torch.arange(len(order), device=self.device)
        return SortedRoutes(
            routes=order,
            ends=counts.cumsum(0),
            counts=counts,
            inverse=inverse.view_as(tensors["expert_ids"]),
            gather=order // routes.top_k,
            weights=tensors["weights"].flatten()[order],
        )

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Run the chosen experts, one after the other. Errors: ``ValueError``."""
        config.check(inputs)
        given = torch_experts_inputs(inputs, self.device)
        return without_graph(lambda: run_experts(config, given))()

    expert_gradients = torch_expert_gradients

    shard = shard_of_experts

    def on_rank(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Tensor:
        """Send rows to the ranks of their experts, and add up what comes back."""
        return run_on_rank(config, inputs, placement, self.device)

    rank_gradients = torch_rank_gradients

    def layer(self, config: LayerConfig, inputs: LayerInputs) -> LayerResult:
        """Route, run the chosen experts, and add the shared expert. Errors: ``ValueError``."""
        import torch
        from torch.nn import functional as F

        check_inputs(config.router, inputs)
        given = torch_layer_inputs(inputs, self.device)
        hidden = given.router.hidden
        with torch.no_grad():
            routing = _route(config.router, given.router)
            routes = {"hidden": hidden, "expert_ids": routing.expert_ids}
            weights = routing.weights.to(hidden.dtype)
            output = run_experts(config.experts, {**routes, **given.experts, "weights": weights})
            if config.shared.kind != "none":
                shared = swiglu(hidden, given.shared)
                if config.shared.gated:
                    shared = F.linear(hidden, given.shared["gate"]).sigmoid() * shared
                output = output + shared
            return LayerResult(output=output, routing=routing)


def swiglu(hidden: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Return ``down(silu(gate_proj x) * up_proj x)``, shape ``[T, H]``."""
    from torch.nn import functional as F

    gate = F.silu(F.linear(hidden, weights["gate_proj"]))
    return F.linear(gate * F.linear(hidden, weights["up_proj"]), weights["down_proj"])


def _route(config: RouterConfig, given: TorchInputs) -> Routing:
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


def _replay(config: RouterConfig, given: TorchInputs, ids: Tensor) -> Routing:
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
