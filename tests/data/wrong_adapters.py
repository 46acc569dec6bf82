"""Adapters that are wrong in one way each, for the tests of what the suite reports.

Named on the command line as ``wrong_adapters.py:Name``. ``Router`` is right, and quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from moe_routing.implementations import BackendMissing, Capabilities, Claim, torch_inputs
from moe_routing.reference import (
    FORMATS,
    RouterConfig,
    RouterInputs,
    Routing,
    SharedExpertConfig,
    SharedExpertInputs,
    Stages,
    shared_contribution,
    stages,
)
from moe_routing.reference.selection import top_k
from moe_routing.reference.weights import renormalize, scale

BFLOAT16 = FORMATS["bfloat16"]


class Router:
    """The reference router, claimed whole; what follows overrides one part of it."""

    name = "right"
    claims = Capabilities(logits="routed")

    def capabilities(self) -> Capabilities:
        return self.claims

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Any:
        self.claims.require(config, inputs)
        done = stages(RouterConfig(**vars(config)), inputs)
        return Routing(weights=done.weights, expert_ids=done.expert_ids, logits=done.logits)


def _selecting(config: RouterConfig, inputs: RouterInputs, done: Stages, ids: Any) -> Routing:
    """Return the answer with other experts, and the weights that go with them."""
    gathered = np.take_along_axis(done.scores, ids, axis=1)
    normed = renormalize(config.renormalize, gathered)
    return Routing(weights=scale(config, inputs, normed, ids), expert_ids=ids, logits=done.logits)


class Plain(Router):
    """A right router of plain scores: what the wrong ones below are made from."""

    claims = Capabilities(
        claims=(Claim(weights_from=("scores",), expert_table=(False,)),), logits="routed"
    )

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        self.claims.require(config, inputs)
        return self.answer(RouterConfig(**vars(config)), inputs)

    def answer(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        done = stages(config, inputs)
        return _selecting(config, inputs, done, self.ids(config, done))

    def ids(self, config: RouterConfig, done: Stages) -> Any:
        return done.expert_ids


class BiasedWeights(Plain):
    """Gathers the weights from the scores with the selection bias."""

    name = "biased-weights"

    def answer(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        done = stages(config, inputs)
        return _selecting(config, inputs, replace(done, scores=done.biased), done.expert_ids)


class RoundsTheBlocksBias(Plain):
    """Keeps a bias of the block, and of no other place, in bfloat16."""

    name = "rounds-the-blocks-bias"

    def answer(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        if inputs.selection_bias_on == "block" and inputs.selection_bias is not None:
            inputs = replace(inputs, selection_bias=BFLOAT16.round(inputs.selection_bias))
        done = stages(config, inputs)
        return _selecting(config, inputs, done, done.expert_ids)


class ZeroGroupFill(Plain):
    """Lets the experts of excluded groups compete with 0.0."""

    name = "zero-group-fill"

    def answer(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        groups = config.groups and replace(config.groups, fill=0.0)
        return super().answer(replace(config, groups=groups), inputs)


class LastExpertLost(Plain):
    """Stops its scan one expert before the last."""

    name = "last-expert-lost"

    def ids(self, config: RouterConfig, done: Stages) -> Any:
        seen = np.where(np.arange(config.num_experts) == config.num_experts - 1, -np.inf, 0.0)
        return top_k(done.competing + seen, config.top_k)


class Bfloat16Logits(Plain):
    """Computes the logits in bfloat16 where float32 is the least that is permitted."""

    name = "bfloat16-logits"
    claims = replace(
        Plain.claims, claims=(replace(Plain.claims.claims[0], logits_dtype=("float32",)),)
    )

    def answer(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        right = super().answer(config, inputs)
        return replace(right, logits=BFLOAT16.round(right.logits))


class TiesTakeTurns(Plain):
    """Breaks ties by the lowest index in one call and by the highest in the next."""

    name = "ties-take-turns"

    def __init__(self) -> None:
        self.calls = count()

    def ids(self, config: RouterConfig, done: Stages) -> Any:
        if next(self.calls) % 2:
            return done.expert_ids
        return config.num_experts - 1 - top_k(done.competing[:, ::-1], config.top_k)


class PeeksAtNeighbour(Plain):
    """Adds a part of the next token's hidden state to every token's."""

    name = "peeks-at-neighbour"

    def answer(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        hidden = inputs.hidden + np.roll(inputs.hidden, 1, axis=0)
        mixed = replace(inputs, hidden=hidden.astype(np.float32), dtype="float32", logits=None)
        return replace(super().answer(config, mixed), logits=super().answer(config, inputs).logits)


class ScalesTensors(Plain):
    """Scales the tensor of its hidden states in place."""

    name = "scales-tensors"

    def answer(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        torch_inputs(inputs).hidden.mul_(0.5)
        return super().answer(config, inputs)


class ScalesArrays(Plain):
    """Scales the NumPy array of its hidden states in place, through a tensor that shares it."""

    name = "scales-arrays"

    def answer(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        import torch

        right = super().answer(config, inputs)
        torch.from_numpy(inputs.hidden).zero_()
        return right


class WritesArrays(Plain):
    """Assigns to an input array, which is read-only."""

    name = "writes-arrays"

    def answer(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        inputs.hidden[...] = 0.0
        return super().answer(config, inputs)


class ClaimsTooMuch(Router):
    """Claims the whole specification, and has no place for a selection bias."""

    name = "claims-too-much"

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        if inputs.selection_bias is not None:
            raise NotImplementedError("selection_bias")
        return super().route(config, inputs)


class ClaimsTooLittle(Router):
    """Claims the softmax, and answers everything."""

    name = "claims-too-little"

    def capabilities(self) -> Capabilities:
        return Capabilities(claims=(Claim(score=("softmax",)),), logits="routed")


class RefusesWithValueError(ClaimsTooLittle):
    """Claims the softmax, and refuses the rest with another exception than Unsupported."""

    name = "refuses-with-value-error"

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        if config.score != "softmax":
            raise ValueError("only softmax")
        return super().route(config, inputs)


class ClaimsNothing(Router):
    """Claims nothing at all."""

    name = "claims-nothing"
    claims = Capabilities(claims=())


class MasksItsLogits(Router):
    """Masks what competes in place: its logits, where no score and no bias made a copy."""

    name = "masks-its-logits"

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        right = super().route(config, inputs)
        if config.score != "identity" or inputs.selection_bias is not None:
            return right
        kept = stages(RouterConfig(**vars(config)), inputs).kept
        return replace(right, logits=np.where(kept, right.logits, np.float32("-inf")))


class ReadsScoreInDispatch(Router):
    """Dispatches by the configured score, not by the selection bias."""

    name = "reads-score"

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        return self.route(config, inputs)


class Shares(Router):
    """Passes the contribution of the shared experts through ``change``."""

    def __init__(self, name: str, change: Callable[[Any], Any]) -> None:
        self.name, self.change = name, change

    def shared_experts(self, config: SharedExpertConfig, inputs: SharedExpertInputs) -> Any:
        return self.change(shared_contribution(config, inputs))


SharesAll = Shares("shares-all", lambda right: right)
SharesFloat32 = Shares("shares-float32", lambda right: right.astype(np.float32))
SharesNone = Shares("shares-none", lambda right: None)
SharesTwice = Shares("shares-twice", lambda right: 2.0 * right)
SharesNan = Shares("shares-nan", lambda right: right * np.nan)
SharesRow = Shares("shares-row", lambda right: right[:1])
SharesDict = Shares("shares-dict", lambda right: {"output": right})
SharesText = Shares("shares-text", lambda right: "output")
SharesComplex = Shares("shares-complex", lambda right: right + 1j)


class Prints(Router):
    """Is right, and chatty."""

    name = "prints"

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        print("[bold]routing[/] :smile:", flush=True)
        return super().route(config, inputs)


class Absent(Router):
    """Wraps a package that is not installed."""

    name = "absent"
    wraps = "no-such-distribution"

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        raise BackendMissing("fastmoe is not installed:\n  python -m pip install fastmoe")


class Forgetful(Router):
    """Returns its logits in every other call only."""

    name = "forgetful"

    def __init__(self) -> None:
        self.calls = count()

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        right = super().route(config, inputs)
        return right if next(self.calls) % 2 else replace(right, logits=None)
