"""The router in eager PyTorch: what its stages are called with, and what becomes of padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from moe_routing.implementations.on_device import PreparedRouter
from moe_routing.implementations.tensors import torch_inputs, torch_tensor, without_graph
from moe_routing.implementations.torch_route import route, weigh
from moe_routing.reference import (
    Padding,
    Recorded,
    RouterConfig,
    RouterInputs,
    Routing,
    check_inputs,
)
from moe_routing.reference.replay import forced_config


class EagerRouter(PreparedRouter[Routing]):
    """A router of the whole specification, written as a model's author would."""

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Routing]:
        """Make the tensors of a call. Errors: as ``route``."""
        config = RouterConfig(**vars(config))
        check_inputs(config, inputs)
        given = torch_inputs(inputs, self.device)
        return without_graph(lambda: route(config, given))

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
        routing = without_graph(lambda: weigh(config, given, ids))()
        if held is None:
            return routing
        weights = torch_tensor("forced_weights", held, dtype="float32", device=self.device)
        return replace(routing, weights=weights.to(routing.weights.dtype))

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Route with sigmoid where there is a selection bias and with softmax where not."""
        score = "softmax" if inputs.selection_bias is None else "sigmoid"
        return self.route(RouterConfig(**{**vars(config), "score": score}), inputs)
