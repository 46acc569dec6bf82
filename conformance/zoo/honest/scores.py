"""Honest variants in how score functions are computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import SCORE_FUNCTIONS, Array, shares, softmax
from moe_routing.conformance.zoo.router.stages import at_ids, renormalized
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Numerics
from moe_routing.reference import Renormalize

_NOTHING = Numerics()
LOG2E = np.float32(np.log2(np.e))


def exp2_softmax(z: Array) -> Array:
    """A softmax of powers of two whose logits are scaled before they are shifted."""
    if z.size == 0:
        return z
    scaled = z * LOG2E
    return shares(np.exp2(scaled - scaled.max(axis=1, keepdims=True)))


def logsumexp_softmax(z: Array) -> Array:
    """A softmax that stores its total as a logarithm: ``exp(z - (m + log(total)))``."""
    if z.size == 0:
        return z
    most: Array = z.max(axis=1, keepdims=True)
    exponent: Array = z - (most + np.log(np.exp(z - most).sum(axis=1, keepdims=True)))
    return np.exp(exponent)


def online_softmax(z: Array) -> Array:
    """A softmax in one pass: the total is rescaled whenever the maximum grows."""
    most = np.full((len(z), 1), -np.inf, np.float32)
    total = np.zeros((len(z), 1), np.float32)
    for e in range(0, z.shape[1], 16):
        block = z[:, e : e + 16]
        greater = np.maximum(most, block.max(axis=1, keepdims=True))
        shift = np.where(np.isneginf(greater), 0, greater)
        rescaled = total * np.where(np.isneginf(most), 0, np.exp(most - shift))
        total = rescaled + np.exp(block - shift).sum(axis=1, keepdims=True)
        most = greater
    return np.exp(z - most) / total


def _score(
    name: str,
    score: str,
    compute: Callable[[Array], Array],
    why: str,
    declares: Numerics = _NOTHING,
) -> None:
    def scores(w: Work) -> Array:
        return (compute if w.config.score == score else SCORE_FUNCTIONS[w.config.score])(w.operated)

    scores.__doc__ = why
    honest(name, "scores", declares=declares)(scores)


_score(
    "exp2-softmax",
    "softmax",
    exp2_softmax,
    "exp2 of the difference of scaled logits: the scaling rounds them once more.",
)
_score("logsumexp-softmax", "softmax", logsumexp_softmax, "The total is kept as its logarithm.")
_score("online-softmax", "softmax", online_softmax, "One pass, rescaled as the maximum grows.")
_score(
    "sigmoid-of-one-exponential",
    "sigmoid",
    lambda z: 1 / (1 + np.exp(-z)),
    "The textbook form, which overflows to the right limit.",
)
_score(
    "tanh-sigmoid",
    "sigmoid",
    lambda z: np.float32(0.5) * (1 + np.tanh(z * np.float32(0.5))),
    "One tanh; its error is absolute, which has to be declared.",
    declares=Numerics(sigmoid="absolute"),
)
_score(
    "softplus-as-written",
    "sqrtsoftplus",
    lambda z: np.sqrt(np.where(z > 20, z, np.log(1 + np.exp(np.minimum(z, 20))))),
    "log(1 + exp(z)) as written; its error is absolute, which has to be declared.",
    declares=Numerics(softplus="absolute"),
)


def _renormalised_softmax(w: Work) -> bool:
    rule = w.config.renormalize
    return (
        w.config.score == "softmax" and w.config.weights_from == "scores" and rule == Renormalize()
    )


@honest("softmax-after-top-k", "renormalized")
def _(w: Work) -> Array:
    """A renormalised softmax is the softmax of the selected logits (litgpt issue 2013)."""
    return softmax(at_ids(w, w.operated)) if _renormalised_softmax(w) else renormalized(w)


@honest("numerators-renormalised", "renormalized")
def _(w: Work) -> Array:
    """The softmax's total cancels under renormalisation, so it is never divided by."""
    if not _renormalised_softmax(w):
        return renormalized(w)
    numerators = np.exp(w.operated - w.operated.max(axis=1, keepdims=True, initial=-np.inf))
    return shares(at_ids(w, numerators))
