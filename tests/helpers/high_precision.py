"""Gradients by central differences of a router in fifty digits, which shares nothing with others.

The router is plain Python on mpmath's numbers: one token at a time, at given experts.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

from moe_routing.reference import Renormalize, RouterConfig, RouterInputs

Numbers = dict[str, Any]
STEP = mpmath.mpf(10) ** -18


def differences(
    config: RouterConfig, inputs: RouterInputs, ids: Any, cotangent: Any, kept: Any
) -> dict[str, Any]:
    """Return the gradient of every float array of the inputs, and of the logits."""
    names = [name for name, each in inputs.arrays().items() if each.dtype == np.float32]
    with mpmath.workdps(50):
        exact = {name: mp_array(getattr(inputs, name)) for name in names}
        exact["shift"] = mp_array(np.zeros(cotangent.shape))

        def total(numbers: Numbers) -> Any:
            rows = (token(config, numbers, t, ids[t], kept[t]) for t in range(len(ids)))
            return mpmath.fsum(
                w * float(cotangent[t, e])
                for t, row in enumerate(rows)
                for e, w in zip(ids[t], row, strict=True)
                if e >= 0
            )

        return {
            "logits" if name == "shift" else name: _central(total, exact, name)
            for name in (*names, "shift")
            if name != "logits"
        }


def mp_array(values: Any) -> Any:
    return np.vectorize(lambda x: mpmath.mpf(float(x)), otypes=[object])(np.asarray(values))


def _central(total: Any, exact: Numbers, name: str) -> Any:
    found = np.zeros(exact[name].shape)
    for place in np.ndindex(*exact[name].shape):
        ends = []
        for sign in (1, -1):
            moved = exact[name].copy()
            moved[place] += sign * STEP
            ends.append(total({**exact, name: moved}))
        found[place] = float((ends[0] - ends[1]) / (2 * STEP))
    return found


def token(config: RouterConfig, n: Numbers, t: int, ids: Any, kept: Any) -> list[Any]:
    """Return the weights of one token at ``ids``, 0 where a route is absent."""
    logits = [
        sum(x * w for x, w in zip(_seen(config, n, t), row, strict=True)) + n["shift"][t, e]
        for e, row in enumerate(n["gate_weight"] + n.get("gate_delta", 0))
    ]
    if "gate_bias" in n:
        logits = [z + b for z, b in zip(logits, n["gate_bias"], strict=True)]
    logits = [z * config.logit_multiplier for z in logits]
    if (cap := config.logit_softcap) is not None:
        logits = [cap * mpmath.tanh(z / cap) for z in logits]
    here = [int(e) for e in ids if e >= 0]
    weights = _gathered(config, logits, here, kept)
    weights = _normed(config.renormalize, weights)
    scales = n.get("per_expert_scale", np.ones(len(logits)))
    weights = [w * config.scale * scales[e] for w, e in zip(weights, here, strict=True)]
    return [weights.pop(0) if e >= 0 else 0 for e in ids]


def _seen(config: RouterConfig, n: Numbers, t: int) -> list[Any]:
    row = list(n["hidden"][t])
    if config.input_norm is None:
        return row
    root = mpmath.sqrt(mpmath.fsum(x * x for x in row) / len(row) + config.input_norm.eps)
    scale = n.get("hidden_scale", np.ones(len(row)))
    return [x / root * s / mpmath.sqrt(len(row)) for x, s in zip(row, scale, strict=True)]


def _scores(name: str, logits: list[Any]) -> list[Any]:
    if name == "softmax":
        total = mpmath.fsum(mpmath.exp(z) for z in logits)
        return [mpmath.exp(z) / total for z in logits]
    if name == "sigmoid":
        return [1 / (1 + mpmath.exp(-z)) for z in logits]
    if name == "sqrtsoftplus":
        return [mpmath.sqrt(mpmath.log(1 + mpmath.exp(z))) for z in logits]
    return logits


def _gathered(config: RouterConfig, logits: list[Any], ids: list[int], kept: Any) -> list[Any]:
    if config.weights_from.endswith("_of_selected"):
        return _scores(config.weights_from.removesuffix("_of_selected"), [logits[e] for e in ids])
    scores = _scores(config.score, logits)
    masked = config.weights_from == "masked_scores"
    return [scores[e] if kept[e] or not masked else mpmath.mpf(0) for e in ids]


def _normed(rule: Renormalize | None, weights: list[Any]) -> list[Any]:
    if rule is None or not weights:
        return weights
    order = mpmath.mpf(rule.order)
    norm = mpmath.fsum(w**order for w in weights) ** (1 / order)
    divisor = max(norm + rule.eps, mpmath.mpf(rule.floor))
    return [w / divisor for w in weights]
