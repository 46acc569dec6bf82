"""Verdicts on the ids of small cases, with the reference's weights at them by default."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs, stages
from moe_routing.reference.weights import gather_weights, renormalize, scale

Array = np.ndarray
PLAIN = Numerics()
KINDS = ("routed", "copy", "none")


def router(experts: int, top_k: int, score: str = "softmax", **axes: Any) -> RouterConfig:
    if score == "identity":
        axes.setdefault("weights_from", "softmax_of_selected")
    return RouterConfig(num_experts=experts, top_k=top_k, score=score, **axes)


def from_logits(logits: Any, **arrays: Any) -> RouterInputs:
    return RouterInputs.from_logits(np.asarray(logits, dtype=np.float32), **arrays)


def weights_at(config: RouterConfig, inputs: RouterInputs, ids: Array) -> Array:
    """The reference's weights at any ids."""
    done, ids = stages(config, inputs), np.clip(ids, 0, config.num_experts - 1)
    with np.errstate(all="ignore"):
        gathered = gather_weights(config, done.operated, done.scores, done.kept, ids)
        return scale(config, inputs, renormalize(config.renormalize, gathered), ids)


def verdict_on(
    config: RouterConfig,
    inputs: RouterInputs,
    ids: Any,
    weights: Any = None,
    own: Any = None,
    logits: Literal["routed", "copy", "none"] = "none",
) -> Verdict:
    """Judge ``ids``, with the reference's weights at them unless others are given."""
    bounds, ids = Bounds(config, inputs, PLAIN), np.asarray(ids)
    weights = weights_at(config, inputs, ids) if weights is None else weights
    own = None if own is None else np.asarray(own, dtype=np.float64)
    answer = Answer(weights=np.asarray(weights, dtype=np.float64), expert_ids=ids, logits=own)
    return judge(bounds, answer, logits=logits)


def wrong_stages(verdict: Verdict) -> list[str]:
    names = ("distinct", "in_range", "selection", "logits", "weights")
    found = {name: getattr(verdict, name) for name in names}
    return [name for name, fine in found.items() if fine is not None and not fine.all()]
