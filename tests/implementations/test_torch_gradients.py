"""torch_gradients: one line makes an adapter differentiable, and a broken graph is told as None."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from moe_routing.implementations import (
    Capabilities,
    Claim,
    Differentiates,
    FlatRouting,
    RoutingMap,
    load_adapter,
    parameter,
    torch_gradients,
    torch_inputs,
    without_graph,
)
from moe_routing.implementations.tensors import differentiating
from moe_routing.reference import RouterConfig, RouterInputs, Routing, gradients

CONFIG = RouterConfig(num_experts=3, top_k=2)
INPUTS = RouterInputs.from_logits(np.float32([[1.0, 0.5, -1.0], [0.0, 2.0, 0.25]]))
COTANGENT = np.float32([[1.0, -2.0, 0.5], [0.25, 1.0, 3.0]])


class Softmax:
    """A softmax router."""

    name = "softmax"

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        given = torch_inputs(inputs)

        @without_graph
        def routed() -> Any:
            logits = given.hidden @ given.gate_weight.T
            found = logits.softmax(-1).topk(config.top_k)
            return self.answer(logits, found.values, found.indices)

        return routed()

    def answer(self, logits: Any, weights: Any, ids: Any) -> Any:
        return Routing(weights=weights, expert_ids=ids, logits=logits)

    gradients = torch_gradients


class Flat(Softmax):
    def answer(self, logits: Any, weights: Any, ids: Any) -> Any:
        tokens = torch.arange(len(ids)).repeat_interleave(ids.shape[1])
        return FlatRouting(
            scores=weights.flatten(),
            token_indices=tokens.int(),
            expert_indices=ids.flatten().int(),
            num_tokens=len(ids),
        )


class Dense(Softmax):
    def answer(self, logits: Any, weights: Any, ids: Any) -> Any:
        probs = torch.zeros_like(logits).scatter(1, ids, weights)
        return RoutingMap(probs=probs, routing_map=torch.zeros_like(probs).scatter(1, ids, 1) > 0)


class Detached(Softmax):
    def answer(self, logits: Any, weights: Any, ids: Any) -> Any:
        return Routing(weights=weights.detach(), expert_ids=ids)


@pytest.mark.parametrize("made", [Softmax, Flat, Dense])
def test_it_is_the_gradient_in_every_layout(made: type[Softmax]) -> None:
    found = made().gradients(CONFIG, INPUTS, COTANGENT)
    due = gradients(CONFIG, INPUTS, [[0, 1], [1, 2]], COTANGENT)
    for name in ("hidden", "gate_weight"):
        np.testing.assert_allclose(getattr(found, name), getattr(due, name), atol=1e-6)
    assert (found.logits is not None) == (made is Softmax)


class Halved(Softmax):
    """Its weights have a backward pass that is called with what autograd is given."""

    given: Any = None

    def answer(self, logits: Any, weights: Any, ids: Any) -> Any:
        weights.register_hook(lambda given: setattr(Halved, "given", given))
        return super().answer(logits, weights, ids)


def test_a_cotangent_in_columns_comes_with_strides_and_nan_between_its_numbers() -> None:
    """As behind a concatenation: a kernel that takes its pointer for rows is wrong."""
    rows = Halved().gradients(CONFIG, INPUTS, COTANGENT)
    assert Halved.given.is_contiguous()
    columns = Halved().gradients(CONFIG, INPUTS, np.asfortranarray(COTANGENT))
    assert Halved.given.stride() == (5, 2)
    assert Halved.given.as_strided((5,), (1,)).isnan().tolist() == [False, True, False, True, True]
    assert torch.equal(rows.gate_weight, columns.gate_weight)
    for made in (Flat, Dense):
        found = made().gradients(CONFIG, INPUTS, np.asfortranarray(COTANGENT))
        assert torch.equal(found.gate_weight, rows.gate_weight)


class Checkpointed(Softmax):
    """Recomputed in the backward pass, as activation checkpointing does."""

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        given = torch_inputs(inputs)

        def routed(hidden: Any, gate: Any) -> Any:
            found = (hidden @ gate.T).softmax(-1).topk(config.top_k)
            return found.values, found.indices

        weights, ids = checkpoint(routed, given.hidden, given.gate_weight, use_reentrant=False)
        return Routing(weights=weights, expert_ids=ids)


def test_recomputation_that_routes_alike_is_right() -> None:
    found = Checkpointed().gradients(CONFIG, INPUTS, COTANGENT)
    due = Softmax().gradients(CONFIG, INPUTS, COTANGENT)
    assert torch.equal(found.hidden, due.hidden)
    assert torch.equal(found.gate_weight, due.gate_weight)


def test_detached_weights_have_no_gradient_at_all() -> None:
    assert Detached().gradients(CONFIG, INPUTS, COTANGENT).arrays() == {}


def test_route_itself_has_no_graph() -> None:
    assert not Softmax().route(CONFIG, INPUTS).weights.requires_grad
    assert not parameter("gate_weight", torch.ones(2)).requires_grad


def test_a_parameter_stands_for_the_input_that_it_is_named_after() -> None:
    with differentiating() as leaves:
        made = parameter("gate_weight", torch_inputs(INPUTS).gate_weight)
    assert leaves["gate_weight"] is made
    assert made.requires_grad
    assert leaves["hidden"].requires_grad


def test_every_torch_adapter_that_is_shipped_differentiates() -> None:
    for name in ("torch", "scattermoe", "sonicmoe", "megatron-core", "torchtitan"):
        assert hasattr(load_adapter(name), "gradients"), name


def test_a_claim_names_inputs() -> None:
    with pytest.raises(ValueError, match=r"Expected Differentiates\.of to list only 'logits'"):
        Differentiates(of=("gate",))
    with pytest.raises(ValueError, match=r"gradients"):
        Capabilities(gradients=("hidden",))  # type: ignore[arg-type]


def test_a_backend_that_takes_logits_claims_their_gradient_and_no_gates() -> None:
    whole = Capabilities()
    assert "hidden" in whole.differentiated
    assert "logits" not in whole.differentiated
    assert Capabilities(takes="logits", claims=(Claim(input_norm=(False,)),)).differentiated == (
        "logits",
        "per_expert_scale",
    )
