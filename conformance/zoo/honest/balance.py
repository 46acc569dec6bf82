"""Honest variants of balance: forms of sums, float64, histograms, closed forms, what is missing."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.balancer import (
    BALANCING,
    BalancerWork,
    StagedBalancer,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.implementations import Balance, Balances, Capabilities
from moe_routing.reference import balance

balancer = partial(honest, makes=StagedBalancer)


def _claims(**axes: Any) -> Capabilities:
    return Capabilities(balances=Balances(**axes))


@balancer("balanced-plain", "answer")
def _(w: BalancerWork) -> Any:
    """Every part, in float32."""
    return BALANCING["answer"](w)


@balancer("balanced-in-float64", "aux_loss", "aux_gradient", "z_loss", "bias")
def _(w: BalancerWork, stage: str) -> Any:
    """All in float64, and not rounded at the end."""
    name = "updated_bias" if stage == "bias" else stage
    return getattr(balance, name)(w.config, w.inputs)


@balancer("counted-by-bincount", "counted")
def _(w: BalancerWork) -> Array:
    """Counts by a histogram with a bin of its own for what is not counted, as floats."""
    ids = np.where((w.ids < 0) | (w.mask == 0)[None, :, None], w.experts, w.ids)
    rows = [np.bincount(each.reshape(-1), minlength=w.experts + 1) for each in ids]
    return np.stack(rows)[:, : w.experts].astype(np.float32)


@balancer("loss-of-means", "aux_loss")
def _(w: BalancerWork) -> Any:
    """The loss as the product of two means, summed backwards, and multiplied by E at the end."""
    mask = w.mask[None, :, None].astype(np.float32)
    p = (w.scores * mask)[:, ::-1].sum(axis=1) / np.float32(w.rows)
    f = w.loss_counts.astype(np.float32) / np.float32(w.rows)
    if w.config.over_layers == "pooled":
        p, f = p.mean(axis=0)[None], f.mean(axis=0)[None]
    each = (p * f)[:, ::-1].sum(axis=1) / np.float32(w.slots) * np.float32(w.experts)
    return np.float32(each.mean() if w.config.over_layers == "mean" else each.sum())


@balancer("loss-summed-at-once", "aux_loss")
def _(w: BalancerWork) -> Any:
    """The loss as one sum over tokens and experts."""
    mask = w.mask[None, :, None].astype(np.float32)
    return np.float32((w.scores * w.factors[:, None, :] * mask).reshape(-1).cumsum()[-1])


@balancer("gradient-by-products-first", "aux_gradient", claims=_claims(score=("softmax",)))
def _(w: BalancerWork) -> Array:
    """The gradient with its products made before their difference."""
    g = w.factors[:, None, :] * w.mask[None, :, None].astype(np.float32)
    p = w.scores
    return np.asarray(p * g - p * (p * g).sum(axis=-1, keepdims=True))


@balancer("softmax-by-logarithms", "scores", claims=_claims(score=("softmax",)))
def _(w: BalancerWork) -> Array:
    """The softmax as an exponential of a logarithm."""
    z = w.inputs.logits - w.inputs.logits.max(axis=-1, keepdims=True)
    return np.asarray(np.exp(z - np.log(np.exp(z).sum(axis=-1, keepdims=True))))


@balancer("z-loss-without-a-maximum", "z_values")
def _(w: BalancerWork) -> Array:
    """The logarithm of summed exponentials without their maximum taken off, in float64."""
    wide = w.inputs.logits.astype(np.float64)
    return np.asarray(np.log(np.exp(wide).sum(axis=-1)) ** 2)


@balancer("loss-that-chooses-again", "loss_counts", claims=_claims(ids=("top_k",), absent=(False,)))
def _(w: BalancerWork) -> Any:
    """Where the experts are those of the greatest logits, the loss may choose them again."""
    ids = np.argsort(-w.inputs.logits, axis=2)[:, :, : w.inputs.top_k]
    assert (np.sort(ids) == np.sort(w.ids)).all()
    return BALANCING["loss_counts"](w)


@balancer("loss-alone", "answer", claims=_claims(of=("aux_loss",)))
def _(w: BalancerWork) -> Balance:
    """A function of the loss has nothing else."""
    return Balance(aux_loss=float(w.aux_loss))


@balancer("bias-in-place", "answer", claims=_claims(of=("bias", "counts")))
def _(w: BalancerWork) -> Balance:
    """A buffer that is added to."""
    bias = w.inputs.bias.copy()
    bias += w.step * np.float32(w.config.mode != "eval")
    return Balance(bias=bias, counts=w.reported_counts.astype(np.int32))
