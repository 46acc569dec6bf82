"""Honest variants of scores in 16 bits: every step stored in the dtype of the inputs.

Where float32 is demanded they are the plain router. They return the logits that they route.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.zoo.honest.narrow_steps import (
    approximate,
    approximate_below,
    at_once,
    exact,
    in_pairs,
    put,
    rows_below,
    running,
)
from moe_routing.conformance.zoo.honest.precision import least_logits
from moe_routing.conformance.zoo.residents import ROUTED, honest
from moe_routing.conformance.zoo.router.functions import SCORE_FUNCTIONS, Array
from moe_routing.conformance.zoo.router.stages import RIGHT, at_ids
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference import Renormalize
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, FloatFormat

Step = Callable[[Array, FloatFormat], Array]
Softmax = Callable[["Steps", Array, FloatFormat], Array]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How a router takes its steps: a softmax, an exponential, and its two kinds of sums."""

    softmax: Softmax
    exp: Step = exact
    of_all: Step = at_once
    of_selected: Step = at_once
    reciprocal: bool = False
    renormalizes_logits: bool = False

    def over(self, values: Array, total: Array, form: FloatFormat) -> Array:
        """Divide, or multiply by a stored reciprocal where that is finite."""
        quotient = put(values / total, form)
        if not self.reciprocal:
            return quotient
        inverse = put(1 / total, form)
        return np.where(np.isfinite(inverse), put(values * inverse, form), quotient)


def fused(steps: Steps, z: Array, form: FloatFormat) -> Array:
    """Compute all of it in float32, and store the scores."""
    return put(SCORE_FUNCTIONS["softmax"](z), form)


def by_quotient(steps: Steps, z: Array, form: FloatFormat) -> Array:
    """Store the difference, the exponential, the sum and the quotient."""
    raised = steps.exp(rows_below(z, form)[0], form)
    return steps.over(raised, steps.of_all(raised, form), form)


def by_log_softmax(steps: Steps, z: Array, form: FloatFormat) -> Array:
    """Store the difference, and the logarithm of the sum, which is taken off it."""
    below = rows_below(z, form)[0]
    total = steps.of_all(steps.exp(below, form), form)
    return steps.exp(put(below - put(np.log(total), form), form), form)


def by_logsumexp(steps: Steps, z: Array, form: FloatFormat) -> Array:
    """Store the logarithm of the norm, which is taken off the logits."""
    below, most = rows_below(z, form)
    total = steps.of_all(steps.exp(below, form), form)
    norm = put(most + put(np.log(total), form), form)
    return steps.exp(put(z - norm, form), form)


def online(steps: Steps, z: Array, form: FloatFormat) -> Array:
    """Keep a running total in float32, of stored exponentials; divide by it once."""
    most = np.full((len(z), 1), -np.inf, np.float32)
    total = np.zeros((len(z), 1), np.float32)
    for e in range(0, z.shape[1], 16):
        block = z[:, e : e + 16]
        greater = np.maximum(most, block.max(axis=1, keepdims=True))
        shift = np.where(np.isneginf(greater), 0, greater)
        total = total * np.where(np.isneginf(most), 0, np.exp(most - shift))
        total = total + steps.exp(put(block - shift, form), form).sum(axis=1, keepdims=True)
        most = greater
    return steps.over(steps.exp(put(z - most, form), form), total, form)


def narrow(w: Work) -> FloatFormat | None:
    """Return the format of 16 bits that the scores of a call may be stored in, or None."""
    form = INPUT_FORMATS[w.inputs.dtype]
    return None if w.config.scores_dtype == "float32" or form is FLOAT32 else form


def plain(stage: str, w: Work) -> Array:
    """Take a stage as the plain router does."""
    return np.asarray(RIGHT[stage](w))


def scores(steps: Steps, w: Work) -> Array:
    """Store every step of the score function."""
    form = narrow(w)
    if form is None or not w.operated.size:
        return plain("scores", w)
    z = put(w.operated, form)
    if w.config.score == "softmax":
        return steps.softmax(steps, z, form)
    if w.config.score == "sqrtsoftplus":
        small = put(np.log1p(steps.exp(-np.abs(z), form)), form)
        return put(np.sqrt(put(np.maximum(z, 0) + small, form)), form)
    return sigmoid(steps, z, form) if w.config.score == "sigmoid" else z


def sigmoid(steps: Steps, z: Array, form: FloatFormat) -> Array:
    """Take the exponential of what is not positive, which cannot overflow."""
    small = steps.exp(-np.abs(z), form)
    return steps.over(np.where(z >= 0, np.float32(1), small), put(1 + small, form), form)


def gathered(steps: Steps, w: Work) -> Array:
    """Store the weights that are made of the selected logits."""
    form = narrow(w)
    if form is None or w.config.weights_from in ("scores", "masked_scores") or not w.scores.size:
        return plain("gathered", w)
    z = put(at_ids(w, w.operated), form)
    if w.config.weights_from == "softmax_of_selected":
        return steps.softmax(selected(steps), z, form)
    return sigmoid(steps, z, form)


def selected(steps: Steps) -> Steps:
    """Return the steps of a softmax over the selected experts."""
    return Steps(**{**vars(steps), "of_all": steps.of_selected})


def renormalized(steps: Steps, w: Work) -> Array:
    """Store the norm and the quotient; a plain one may be a softmax of the selected logits."""
    form, rule = narrow(w), w.config.renormalize
    if form is None or rule is None or not w.scores.size:
        return plain("renormalized", w)
    softmax = w.config.score == "softmax" and w.config.weights_from == "scores"
    if softmax and rule == Renormalize() and steps.renormalizes_logits:
        return steps.softmax(selected(steps), put(at_ids(w, w.operated), form), form)
    return steps.over(w.gathered, norm(steps, w, rule, form), form)


def norm(steps: Steps, w: Work, rule: Renormalize, form: FloatFormat) -> Array:
    """Store the powers, their sum, the root and the sum with eps."""
    order = np.float32(rule.order)
    powers = np.abs(w.gathered) if order == 1 else put(np.abs(w.gathered) ** order, form)
    total = steps.of_selected(powers, form)
    total = total if order == 1 else put(total ** (1 / order), form)
    eps, floor = (put(np.float32(value), form) for value in (rule.eps, rule.floor))
    return np.maximum(put(total + eps, form), floor)


def scaled(steps: Steps, w: Work) -> Array:
    """Store the scale and the product with it."""
    form = narrow(w)
    if form is None or w.config.scale == 1.0:
        return plain("scaled", w)
    return put(w.renormalized * put(np.float32(w.config.scale), form), form)


def weights(steps: Steps, w: Work) -> Array:
    """Store the product with each expert's own scale."""
    form = narrow(w)
    return plain("weights", w) if form is None else put(plain("weights", w), form)


_STAGES: dict[str, Callable[[Steps, Work], Array]] = {
    "scores": scores,
    "gathered": gathered,
    "renormalized": renormalized,
    "scaled": scaled,
    "weights": weights,
}


def _steps(name: str, steps: Steps, why: str) -> None:
    def stage(w: Work, stage: str) -> Array:
        if stage == "logits":
            return least_logits(w)
        return w.logits if stage == "reported_logits" else _STAGES[stage](steps, w)

    stage.__doc__ = why
    honest(name, "logits", *_STAGES, "reported_logits", claims=ROUTED)(stage)


_steps(
    "eager-16-bit",
    Steps(softmax=fused),
    "Every operation computes in float32 and stores in 16 bits, as eager code does.",
)
_steps(
    "stepwise-16-bit",
    Steps(softmax=by_quotient, of_all=in_pairs, of_selected=in_pairs),
    "A softmax of stored differences, exponentials and quotients, its sums a tree of stored ones.",
)
_steps(
    "reciprocal-16-bit",
    Steps(softmax=by_quotient, reciprocal=True),
    "Products with a stored reciprocal in place of quotients.",
)
_steps(
    "running-sum-16-bit",
    Steps(softmax=by_quotient, of_selected=running),
    "The selected are added up one after the other in 16 bits, eight at most at a time.",
)
_steps(
    "log-softmax-16-bit",
    Steps(softmax=by_log_softmax, renormalizes_logits=True),
    "The sum's logarithm is stored, and taken off stored differences.",
)
_steps(
    "logsumexp-16-bit",
    Steps(softmax=by_logsumexp, of_selected=running, renormalizes_logits=True),
    "The norm's logarithm is stored, and taken off the logits, of all or of the selected.",
)
_steps(
    "log-softmax-then-norm-16-bit",
    Steps(softmax=by_log_softmax, of_all=in_pairs, of_selected=running),
    "Weights recovered from a stored logarithm are divided by their own sum.",
)
_steps(
    "approximate-exp2-16-bit",
    Steps(softmax=by_quotient, exp=approximate, of_selected=running, reciprocal=True),
    "The exponential unit of 16 bits errs by two units, up near 0 and down below.",
)
_steps(
    "approximate-log-softmax-then-norm-16-bit",
    Steps(softmax=by_log_softmax, exp=approximate_below, of_all=in_pairs, of_selected=running),
    "That unit the other way, in weights that are divided by their own sum.",
)
_steps(
    "approximate-logsumexp-16-bit",
    Steps(softmax=by_logsumexp, exp=approximate_below, renormalizes_logits=True),
    "That unit the other way, in the sum and in what is taken off its logarithm.",
)
_steps(
    "online-softmax-16-bit",
    Steps(softmax=online, of_selected=running),
    "One pass over stored exponentials, whose running total is kept in float32.",
)
