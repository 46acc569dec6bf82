"""Torch routers whose scores take other honest steps in 16 bits, on any device.

    moe-routing check tests/helpers/sixteen_bit_routers.py:StoredNorm --device cuda

The zoo has the same forms in NumPy; here a device's own kernels add, exponentiate and divide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_routing.implementations import torch_route as eager
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.tensors import TorchInputs, torch_inputs, without_graph
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, Routing, check_inputs


class Steps(NamedTuple):
    """What a route has computed before it weighs: ``[T, E]`` each."""

    operated: Tensor
    scores: Tensor
    kept: Tensor


def _below(z: Tensor) -> Tensor:
    return z - z.amax(-1, keepdim=True)


def at_once(z: Tensor) -> Tensor:
    """Add up in one call."""
    return z.sum(-1, keepdim=True)


def in_turn(z: Tensor) -> Tensor:
    """Add up every eighth number one after the other, and then these sums, each sum stored."""
    runs = F.pad(z, (0, -z.shape[-1] % 8)).unflatten(-1, (8, -1))
    total = runs[..., 0, :]
    for each in range(1, 8):
        total = total + runs[..., each, :]
    while total.shape[-1] > 1:
        total = F.pad(total, (0, total.shape[-1] % 2))
        total = total[..., ::2] + total[..., 1::2]
    return total


def by_quotient(z: Tensor) -> Tensor:
    """Store differences, exponentials, their sum and quotients."""
    raised = _below(z).exp()
    return raised / raised.sum(-1, keepdim=True)


def by_reciprocal(z: Tensor) -> Tensor:
    """Multiply with a stored reciprocal."""
    raised = _below(z).exp()
    return raised * raised.sum(-1, keepdim=True).reciprocal()


def by_log_softmax(z: Tensor) -> Tensor:
    """Exponentiate a stored logarithm of the softmax."""
    return F.log_softmax(z, dim=-1).exp()


def by_stored_logarithm(z: Tensor) -> Tensor:
    """Take the stored logarithm of the sum off stored differences."""
    below = _below(z)
    return (below - below.exp().sum(-1, keepdim=True).log()).exp()


def by_logsumexp(z: Tensor) -> Tensor:
    """Take the stored logarithm of the norm off the logits."""
    return (z - z.logsumexp(-1, keepdim=True)).exp()


class _Narrow:
    """Eager PyTorch but where scores may be in 16 bits: each step of these stores its result."""

    wraps = "torch"

    softmax: Callable[[Tensor], Tensor] = staticmethod(by_quotient)
    total: Callable[[Tensor], Tensor] = staticmethod(at_once)
    renormalizes_logits = False

    def __init__(self, device: str = "cpu") -> None:
        self.name, self.device = type(self).__name__, device

    def capabilities(self) -> Capabilities:
        """Claim the choice of experts alone: logits as they are routed."""
        return Capabilities(logits="routed")

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Route in PyTorch. Errors: ``ValueError``."""
        return self.prepare(config, inputs)()

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Routing]:
        """Make the tensors of a call. Errors: ``ValueError``."""
        config = RouterConfig(**vars(config))
        check_inputs(config, inputs)
        given = torch_inputs(inputs, self.device)
        narrow = config.scores_dtype == "input" and inputs.dtype != "float32"
        route = self._route if narrow else eager.route
        return without_graph(lambda: route(config, given))

    def _route(self, config: RouterConfig, given: TorchInputs) -> Routing:
        logits = eager._logits(config, given)
        operated = eager._logit_op(config, logits.to(given.hidden.dtype))
        scores = self._scores(config.score, operated)
        biased = scores.float()
        if given.selection_bias is not None:
            biased = biased + given.selection_bias
        kept = eager._kept_experts(config.groups, biased)
        if given.expert_table is not None:
            ids = given.expert_table[given.token_ids]
        else:
            competing = biased.masked_fill(~kept, config.groups.fill) if config.groups else biased
            ids = competing.topk(config.top_k, dim=-1).indices
        steps = Steps(operated, scores, kept)
        weights = self._weights(config, given, steps, ids)
        return Routing(weights=weights, expert_ids=ids, logits=logits)

    def _softmax(self, z: Tensor) -> Tensor:
        return type(self).softmax(z)

    def _scores(self, name: str, z: Tensor) -> Tensor:
        match name:
            case "softmax":
                return self._softmax(z)
            case "sigmoid":
                small = (-z.abs()).exp()
                return torch.where(z >= 0, torch.ones_like(z), small) / (1 + small)
            case "sqrtsoftplus":
                return (z.clamp(min=0) + (-z.abs()).exp().log1p()).sqrt()
            case _:
                return z

    def _gathered(self, config: RouterConfig, steps: Steps, ids: Tensor) -> Tensor:
        match config.weights_from:
            case "softmax_of_selected":
                return self._softmax(steps.operated.gather(1, ids))
            case "sigmoid_of_selected":
                return self._scores("sigmoid", steps.operated.gather(1, ids))
            case "masked_scores":
                return steps.scores.masked_fill(~steps.kept, 0.0).gather(1, ids)
            case _:
                return steps.scores.gather(1, ids)

    def _renormalized(self, config: RouterConfig, steps: Steps, ids: Tensor) -> Tensor:
        gathered, rule = self._gathered(config, steps, ids), config.renormalize
        if rule is None:
            return gathered
        softmax = config.score == "softmax" and config.weights_from == "scores"
        if softmax and rule == Renormalize() and self.renormalizes_logits:
            return self._softmax(steps.operated.gather(1, ids))
        powers = gathered.abs() if rule.order == 1 else gathered.abs() ** rule.order
        total = type(self).total(powers)
        total = total if rule.order == 1 else total ** (1 / rule.order)
        return gathered / (total + rule.eps).clamp(min=rule.floor)

    def _weights(
        self, config: RouterConfig, given: TorchInputs, steps: Steps, ids: Tensor
    ) -> Tensor:
        weights = self._renormalized(config, steps, ids) * config.scale
        if given.per_expert_scale is not None:
            weights = weights * given.per_expert_scale.to(weights.dtype)[ids]
        return weights.to(given.hidden.dtype if config.weights_dtype == "input" else torch.float32)


class Quotient(_Narrow):
    """Differences, exponentials, sums and quotients, each stored."""


class Reciprocal(_Narrow):
    """Products with a stored reciprocal; the selected added one after the other."""

    softmax = staticmethod(by_reciprocal)
    total = staticmethod(in_turn)


class LogSoftmax(_Narrow):
    """The exponential of torch's log-softmax; a renormalised softmax is one of the selected."""

    softmax = staticmethod(by_log_softmax)
    renormalizes_logits = True


class StoredLogarithm(_Narrow):
    """The sum's logarithm stored, and weights divided by their own sum."""

    softmax = staticmethod(by_stored_logarithm)
    total = staticmethod(in_turn)


class StoredNorm(_Narrow):
    """The norm's logarithm stored, and taken off the logits, of all or of the selected."""

    softmax = staticmethod(by_logsumexp)
    total = staticmethod(in_turn)
    renormalizes_logits = True


FORMS = (Quotient, Reciprocal, LogSoftmax, StoredLogarithm, StoredNorm)
