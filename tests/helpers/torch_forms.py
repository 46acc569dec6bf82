"""Gradients of a router by torch's autograd, in several honest forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.judge import Answer, Bounds
from moe_routing.conformance.judge.gradients import GradientFacts, GradientVerdict
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, stages

FORMS = ("eager", "logarithm", "reciprocal", "float64", "narrow")
MORE_FORMS = ("log-softmax", "power", "narrow logarithm", "narrow reciprocal")
"""``narrow`` chains store every result in 16 bits, where the scores may be; ``power`` has
powers of two, whose sigmoid has the gradient NaN far below 0."""

_LOG2_E = 1.4426950408889634
Tensors = dict[str, Any]


def verdict_of(case: GradientCase, form: str) -> GradientVerdict:
    """Return the judge's verdict on the gradients of one form."""
    bounds = Bounds(case.config, case.inputs.router, Numerics())
    return judged(bounds, case, *differentiated(bounds, case, form))


def judged(bounds: Bounds, case: GradientCase, answer: Answer, given: Any) -> GradientVerdict:
    """Return the verdict on gradients, judged from the answer's own logits."""
    cotangent = case.inputs.cotangent.astype(np.float64)
    facts = GradientFacts(bounds=bounds, cotangent=cotangent)
    return GradientVerdict(facts=facts, answer=answer, given=given, routed=True)


def differentiated(
    bounds: Bounds, case: GradientCase, form: str, device: str = "cpu"
) -> tuple[Answer, Any]:
    """Route at the experts, and in the groups, that the logits of the call choose, and go back."""
    config, inputs, dtype = case.config, case.inputs, getattr(torch, case.dtype)
    given = {
        name: torch.from_numpy(np.array(each)).to(device, dtype).requires_grad_()
        for name, each in inputs.router.arrays().items()
        if each.dtype == np.float32 and name not in ("logits", "selection_bias")
    }
    logits = _logits(config, given, dtype)
    own = logits.detach().double().cpu().numpy()
    chosen = stages(config, inputs.router, logits=own)
    ids, kept = (torch.from_numpy(a.copy()).to(device) for a in (chosen.expert_ids, chosen.kept))
    weights = _weights(config, given, logits, ids, form, kept)
    at = torch.from_numpy(np.array(inputs.cotangent)).to(device).gather(1, ids).to(weights.dtype)
    found = torch.autograd.grad(weights, [logits, *given.values()], at, allow_unused=True)
    gradients = {
        name: each.double().cpu().numpy()
        for name, each in zip(("logits", *given), found, strict=True)
        if each is not None
    }
    answer = Answer(
        weights=weights.detach().double().cpu().numpy(),
        expert_ids=chosen.expert_ids,
        logits=own,
        weights_dtype="float32",
        logits_dtype="float32",
    )
    return answer, gradients


def _logits(config: RouterConfig, given: Tensors, dtype: torch.dtype) -> torch.Tensor:
    out = dtype if config.logits_dtype == "input" else torch.float32
    hidden = given["hidden"]
    if config.input_norm is not None:
        size = hidden.shape[1]
        hidden = F.rms_norm(hidden.float(), (size,), eps=config.input_norm.eps) * size**-0.5
        if "hidden_scale" in given:
            hidden = hidden * given["hidden_scale"].float()
    hidden = hidden.to(out)
    bias = given["gate_bias"].to(out) if "gate_bias" in given else None
    logits = F.linear(hidden, given["gate_weight"].to(out), bias)
    if "gate_delta" in given:
        logits = logits + F.linear(hidden, given["gate_delta"].to(out))
    return logits


def _weights(
    config: RouterConfig, given: Tensors, logits: torch.Tensor, ids: Any, form: str, kept: Any
) -> torch.Tensor:
    narrow = "narrow" in form and config.scores_dtype == "input"
    form = form.removeprefix("narrow ")
    z = logits.double() if form == "float64" else logits.float()
    z = logits.to(given["hidden"].dtype) if narrow else z
    z = z * config.logit_multiplier
    if config.logit_softcap is not None:
        z = (z / config.logit_softcap).tanh() * config.logit_softcap
    match config.weights_from:
        case "softmax_of_selected":
            weights = _scores("softmax", z.gather(1, ids), form)
        case "sigmoid_of_selected":
            weights = _scores("sigmoid", z.gather(1, ids), form)
        case _:
            scores = _scores(config.score, z, form)
            masked = config.weights_from == "masked_scores"
            weights = (scores.masked_fill(~kept, 0.0) if masked else scores).gather(1, ids)
    if (rule := config.renormalize) is not None:
        norm = torch.linalg.vector_norm(weights, ord=rule.order, dim=-1, keepdim=True)
        norm = weights.sum(-1, keepdim=True) if rule.order == 1 else norm
        divisor = (norm + rule.eps).clamp(min=rule.floor)
        weights = weights * (1.0 / divisor) if form == "reciprocal" else weights / divisor
    weights = weights * config.scale
    if "per_expert_scale" in given:
        weights = weights * given["per_expert_scale"].to(weights.dtype)[ids]
    return weights.to(given["hidden"].dtype) if config.weights_dtype == "input" else weights


def _scores(name: str, z: torch.Tensor, form: str) -> torch.Tensor:
    if name == "softmax" and form == "logarithm":
        return (z - z.logsumexp(-1, keepdim=True)).exp()
    if name == "softmax" and form == "reciprocal":
        powers = (z - z.amax(-1, keepdim=True).detach()).exp()
        return powers * (1.0 / powers.sum(-1, keepdim=True))
    if name == "softmax" and form == "log-softmax":
        return F.log_softmax(z, dim=-1).exp()
    if form == "power" and name in ("softmax", "sigmoid"):
        return _by_powers(name, z * _LOG2_E)
    if name == "softmax":
        return F.softmax(z, dim=-1)
    if name == "sigmoid":
        return F.logsigmoid(z).exp() if form == "logarithm" else z.sigmoid()
    return F.softplus(z).sqrt()


def _by_powers(name: str, z: torch.Tensor) -> torch.Tensor:
    """Return a score of logits in units of log 2."""
    if name == "sigmoid":
        return 1.0 / (1.0 + torch.exp2(-z))
    powers = torch.exp2(z - z.amax(-1, keepdim=True).detach())
    return powers / powers.sum(-1, keepdim=True)
