"""A second reference router, which shares no code or structure with the first.

``naive_token`` routes one token in plain Python: loops over experts, ``math.fsum`` for every
sum, tuples ``(-score, index)`` sorted for every choice.
"""

from __future__ import annotations

import math
from typing import Any

from moe_routing.reference import Renormalize, RouterConfig, RouterInputs


def naive_token(config: RouterConfig, inputs: RouterInputs, t: int) -> dict[str, Any]:
    """Every stage of one token as lists of Python numbers, by the names of ``Stages``."""
    experts = range(config.num_experts)
    x = naive_hidden(config, inputs, t)
    logits = []
    for e in experts:
        terms = [x_h * float(w) for x_h, w in zip(x, inputs.gate_weight[e], strict=True)]
        if inputs.gate_delta is not None:
            terms += [x_h * float(d) for x_h, d in zip(x, inputs.gate_delta[e], strict=True)]
        if inputs.gate_bias is not None:
            terms.append(float(inputs.gate_bias[e]))
        logits.append(math.fsum(terms))
    operated = [z * config.logit_multiplier for z in logits]
    if config.logit_softcap is not None:
        operated = [config.logit_softcap * math.tanh(z / config.logit_softcap) for z in operated]
    scores = naive_scores(config.score, operated)
    biased = list(scores)
    if inputs.selection_bias is not None:
        biased = [scores[e] + float(inputs.selection_bias[e]) for e in experts]
    group_scores, kept = naive_groups(config, biased)
    competing = [biased[e] if kept[e] else config.groups.fill for e in experts]
    if inputs.expert_table is not None:
        ids = [int(e) for e in inputs.expert_table[int(inputs.token_ids[t])]]
    else:
        ids = [e for _, e in sorted((-competing[e], e) for e in experts)][: config.top_k]
    gathered = naive_gather(config, operated, scores, kept, ids)
    renormalized = naive_renormalize(config.renormalize, gathered)
    weights = [w * config.scale for w in renormalized]
    if inputs.per_expert_scale is not None:
        weights = [w * float(inputs.per_expert_scale[e]) for w, e in zip(weights, ids, strict=True)]
    return {
        "logits": logits,
        "operated": operated,
        "scores": scores,
        "biased": biased,
        "group_scores": group_scores,
        "kept": kept,
        "competing": competing,
        "expert_ids": ids,
        "gathered": gathered,
        "renormalized": renormalized,
        "weights": weights,
    }


def naive_hidden(config: RouterConfig, inputs: RouterInputs, t: int) -> list[float]:
    x = [float(v) for v in inputs.hidden[t]]
    if config.input_norm is None:
        return x
    root = math.sqrt(math.fsum(v**2 for v in x) / len(x) + config.input_norm.eps)
    scale = [1.0] * len(x) if inputs.hidden_scale is None else map(float, inputs.hidden_scale)
    return [v / root * s / math.sqrt(len(x)) for v, s in zip(x, scale, strict=True)]


def naive_scores(name: str, logits: list[float]) -> list[float]:
    if name == "softmax":
        return [1.0 / math.fsum(math.exp(other - z) for other in logits) for z in logits]
    if name == "sigmoid":
        return [1.0 / (1.0 + math.exp(-z)) for z in logits]
    if name == "sqrtsoftplus":
        return [math.sqrt(math.log1p(math.exp(z))) for z in logits]
    return list(logits)


def naive_groups(
    config: RouterConfig, biased: list[float]
) -> tuple[list[float] | None, list[bool]]:
    if config.groups is None:
        return None, [True] * len(biased)
    size = len(biased) // config.groups.count
    ranking = []
    for g in range(config.groups.count):
        members = [biased[g * size + i] for i in range(size)]
        best = sorted(members, reverse=True)[: config.groups.top]
        ranking.append((-math.fsum(best), g))
    winners = {g for _, g in sorted(ranking)[: config.groups.kept]}
    return [-score for score, _ in ranking], [e // size in winners for e in range(len(biased))]


def naive_gather(
    config: RouterConfig,
    operated: list[float],
    scores: list[float],
    kept: list[bool],
    ids: list[int],
) -> list[float]:
    if config.weights_from == "scores":
        return [scores[e] for e in ids]
    if config.weights_from == "masked_scores":
        return [scores[e] if kept[e] else 0.0 for e in ids]
    selected = [operated[e] for e in ids]
    return naive_scores(config.weights_from.removesuffix("_of_selected"), selected)


def naive_renormalize(rule: Renormalize | None, weights: list[float]) -> list[float]:
    if rule is None:
        return weights
    norm = math.fsum(w**rule.order for w in weights) ** (1.0 / rule.order)
    divisor = max(norm + rule.eps, rule.floor)
    return [w / divisor if divisor else math.nan for w in weights]
