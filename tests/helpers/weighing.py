"""Weights of small routers: computed in honest ways, judged at the reference's own experts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.implementations import Numerics
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs
from moe_routing.reference.formats import INPUT_FORMATS, FloatFormat

Array = np.ndarray
PLAIN = Numerics()
DTYPES = ("float32", "bfloat16", "float16")


def router(experts: int, top_k: int, score: str = "sigmoid", **axes: Any) -> RouterConfig:
    return RouterConfig(num_experts=experts, top_k=top_k, score=score, **axes)


def given(logits: Any, **arrays: Any) -> RouterInputs:
    """Inputs with these logits, rounded to their dtype."""
    dtype = arrays.get("dtype", "float32")
    logits = INPUT_FORMATS[dtype].round(np.asarray(logits, dtype=np.float64))
    return RouterInputs.from_logits(logits.astype(np.float32), **arrays)


def random_logits(tokens: int, experts: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(tokens, experts)) * 2


def weighed(config: RouterConfig, inputs: RouterInputs, weights: Any, ids: Any) -> Verdict:
    answer = Answer(weights=np.asarray(weights, dtype=np.float64), expert_ids=np.asarray(ids))
    return judge(Bounds(config, inputs, PLAIN), answer)


def assert_right(verdict: Verdict, what: str) -> None:
    if not verdict.weights.all():
        t, k = np.argwhere(~verdict.weights)[0]
        permitted = verdict.weight_bounds.permitted
        pytest.fail(
            f"{what}: weights[{t}, {k}]={verdict.answer.weights[t, k]!r}, but should be in "
            f"[{permitted.lo[t, k]!r}, {permitted.hi[t, k]!r}]"
        )
    assert verdict.right, f"{what}: the weights are right, and another stage is not"


def assert_wrong(verdict: Verdict, what: str, share: float = 0.9) -> None:
    refused = (~verdict.weights).any(axis=1).mean()
    assert refused >= share, f"{what} is refused for {refused:.0%} of the tokens only"


def summed(values: Array, form: FloatFormat, order: str) -> Array:
    """Sum rows ``[T, K]`` to ``[T, 1]``, rounding to ``form`` after each addition."""
    columns = list(values.T)
    if order == "at once":
        return form.round(values.sum(axis=1, keepdims=True))
    if order == "reverse":
        columns.reverse()
    while order == "pairwise" and len(columns) > 1:
        pairs = itertools.zip_longest(columns[::2], columns[1::2])
        columns = [a if b is None else form.round(a + b) for a, b in pairs]
    total = columns[0]
    for column in columns[1:]:
        total = form.round(total + column)
    return total[:, None]


def divided(w: Array, rule: Renormalize, scale: float, form: FloatFormat, how: str) -> Array:
    """Renormalise and scale ``w [T, K]`` in one of the ways that shipped routers do."""
    order, division = how.split("/")
    r = form.round
    if rule.order == 1.0:
        norm = summed(w, form, order)
    else:
        norm = r(summed(r(w**rule.order), form, order) ** (1.0 / rule.order))
    norm = np.maximum(r(norm + r(rule.eps)), r(rule.floor))
    with np.errstate(all="ignore"):
        if division == "reciprocal":
            return r(r(w * r(1.0 / norm)) * r(scale))
        if division == "scale first":
            return r(w * r(r(scale) / norm))
        return r(r(w / norm) * r(scale))


WAYS = [
    f"{order}/{division}"
    for order in ("forward", "reverse", "pairwise", "at once")
    for division in ("quotient", "reciprocal", "scale first")
]
