"""Torch's router and experts, compiled, or run again in the backward pass: all are honest.

    moe-routing check tests/helpers/compiled_routers.py:Inductor --max-examples 3 \\
        --clause gradients.hidden --clause experts.gradients --timeout 600

``AotEager`` traces forward and backward as ``torch.compile`` does, and runs them without a C++
compiler; ``Inductor`` fuses and reorders. A graph is made for each configuration and shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from moe_routing.implementations import (
    RouterGradients,
    load_adapter,
    torch_experts_inputs,
    torch_inputs,
    without_graph,
)
from moe_routing.implementations.tensors import differentiating
from moe_routing.implementations.torch_eager import TorchAdapter
from moe_routing.implementations.torch_experts import run_experts
from moe_routing.implementations.torch_route import route
from moe_routing.reference import (
    ExpertGradients,
    ExpertsConfig,
    ExpertsInputs,
    RouterConfig,
    RouterInputs,
    Routing,
)


class Wrapped(TorchAdapter):
    """The ``torch`` adapter, whose functions are wrapped before they are called."""

    name = "wrapped"

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it is called."""
        raise NotImplementedError

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Any]:
        """Return a call of the wrapped router."""
        given, routed = torch_inputs(inputs), self.wrapped(route)
        return without_graph(lambda: routed(config, given))

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Any:
        """Run the wrapped experts."""
        given, run = torch_experts_inputs(inputs), self.wrapped(run_experts)
        return without_graph(lambda: run(config, given))()


@cache
def compiled(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """Return a function compiled, once: each shape has a graph of its own."""
    torch._dynamo.config.cache_size_limit = 4096
    torch._dynamo.config.accumulated_cache_size_limit = 4096
    return torch.compile(function, backend=backend, dynamic=False)


class AotEager(Wrapped):
    """Traced, forward and backward, and run operation by operation."""

    name = "aot-eager"

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function compiled."""
        return compiled(function, "aot_eager")


class Inductor(Wrapped):
    """Compiled to fused loops."""

    name = "inductor"

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function compiled."""
        return compiled(function, "inductor")


class Checkpointed(Wrapped):
    """Run again in the backward pass, by saved tensors' hooks."""

    name = "checkpointed"
    reentrant = False

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function under a checkpoint."""
        return lambda *given: checkpoint(function, *given, use_reentrant=self.reentrant)


class Reentrant(Wrapped):
    """Run again in the backward pass by a function that goes back itself.

    It takes tensors one by one, and works with ``backward()``: ``torch.autograd.grad`` raises.
    """

    name = "reentrant"

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function under a checkpoint that sees its tensors."""

        def called(config: Any, given: Any) -> Any:
            named = given if isinstance(given, dict) else vars(given)
            names = [name for name, each in named.items() if isinstance(each, torch.Tensor)]

            def again(*tensors: Any) -> Any:
                held = {**named, **dict(zip(names, tensors, strict=True))}
                found = function(
                    config, held if isinstance(given, dict) else replace(given, **held)
                )
                return found if isinstance(found, torch.Tensor) else parts(found)

            out = checkpoint(again, *(named[name] for name in names), use_reentrant=True)
            if isinstance(out, torch.Tensor):
                return out
            return Routing(weights=out[0], expert_ids=out[1], logits=out[2])

        return called

    def gradients(self, config: RouterConfig, inputs: RouterInputs, cotangent: Any) -> Any:
        """Return the router's gradients, by ``backward()``."""
        with differentiating() as leaves, torch.enable_grad():
            routing = self.route(config, inputs)
        at = torch.from_numpy(np.array(cotangent)).gather(1, routing.expert_ids)
        routing.weights.backward(at.to(routing.weights.dtype))
        found = {n: each.grad for n, each in leaves.items() if n != "logits"}
        return RouterGradients(routing=replace(routing, logits=None), **found)

    def expert_gradients(self, config: ExpertsConfig, inputs: ExpertsInputs, cotangent: Any) -> Any:
        """Return the experts' gradients, by ``backward()``."""
        with differentiating() as leaves, torch.enable_grad():
            output = self.experts(config, inputs)
        output.backward(torch.from_numpy(np.array(cotangent)).to(output.dtype))
        return ExpertGradients(**{name: each.grad for name, each in leaves.items()})


def parts(routing: Routing) -> tuple[Any, Any, Any]:
    return routing.weights, routing.expert_ids, routing.logits


def of_transformers(way: type[Wrapped], function: str) -> Any:
    """Return transformers' experts, ``experts:eager`` or another, whose function is wrapped."""
    adapter: Any = load_adapter(f"experts:{function}")
    adapter._function = SimpleNamespace(run=way().wrapped(adapter._function.run))
    adapter.name = f"{way.name}-{function}"
    return adapter


def inductor_eager() -> Any:
    """Return transformers' eager experts, compiled to fused loops."""
    return of_transformers(Inductor, "eager")


def inductor_grouped_mm() -> Any:
    """Return transformers' grouped experts, compiled to fused loops."""
    return of_transformers(Inductor, "grouped_mm")
