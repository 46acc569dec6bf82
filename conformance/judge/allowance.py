"""Share of the tolerance an answer used, excluding the one unavoidable rounding."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.certain_logits import LazyLogits
from moe_routing.conformance.judge.intervals import underflow
from moe_routing.conformance.judge.verdict import Verdict
from moe_routing.reference import stages
from moe_routing.reference.formats import FORMATS, Floats
from moe_routing.reference.logits import logit_op
from moe_routing.reference.scores import SCORE_FUNCTIONS
from moe_routing.reference.weights import gather_weights, renormalize, scale


def allowance_used(verdict: Verdict) -> float:
    """Return the largest share of its allowance that any logit or weight used."""
    with np.errstate(all="ignore"):
        used = (max(logits_used(part), weights_used(part)) for part in verdict.unlike())
        return max(used, default=0.0)


def logits_used(verdict: Verdict) -> float:
    """Return the largest share of its allowance that a logit used; none of what is certain."""
    bounds, answer = verdict.bounds, verdict.answer
    if answer.logits is None or (isinstance(bounds.logits, LazyLogits) and not bounds.logits.made):
        return 0.0
    reference = bounds.logits.reference
    allowed = (bounds.logits.permitted.hi - bounds.logits.permitted.lo) / 2
    keep = np.isfinite(reference) & np.isfinite(answer.logits) & bounds.judged[:, None]
    error = np.abs(answer.logits - reference)
    if not keep.all():
        error, allowed = np.where(keep, error, 0.0), np.where(keep, allowed, 0.0)
    return _share(error, allowed, reference, answer.logits_dtype)


def weights_used(verdict: Verdict) -> float:
    """Return the largest share that a weight used, measured at the answer's own ids."""
    answer, permitted = verdict.answer, verdict.weight_bounds.permitted
    lo, hi, exact = permitted.lo, permitted.hi, _exact_weights(verdict)
    keep = np.isfinite(lo) & np.isfinite(hi) & np.isfinite(answer.weights) & np.isfinite(exact)
    keep &= (verdict.judged & verdict.decided)[:, None] & (lo <= exact) & (exact <= hi)
    exact = np.where(keep, exact, 0.0)
    error = np.where(keep, answer.weights - exact, 0.0)
    allowed = np.where(keep, np.where(error > 0, hi - exact, exact - lo), 0.0)
    return _share(np.abs(error), allowed, exact, answer.weights_dtype)


def _exact_weights(verdict: Verdict) -> Floats:
    """Return the exact weights ``[T, K]`` at the answer's ids, from the logits judged from."""
    bounds, answer = verdict.bounds, verdict.answer
    config, done = bounds.config, bounds.reference
    operated, scores, kept = done.operated, done.scores, done.kept
    if verdict.routed and answer.logits is not None:
        own = np.where(np.isfinite(answer.logits), answer.logits, done.logits)
        operated = logit_op(config, own)
        scores = SCORE_FUNCTIONS[config.score](operated)
        if config.weights_from == "masked_scores":
            kept = stages(config, bounds.inputs, logits=own).kept
    ids = np.clip(answer.expert_ids, 0, config.num_experts - 1)
    gathered = gather_weights(config, operated, scores, kept, ids)
    return scale(config, bounds.inputs, renormalize(config.renormalize, gathered), ids)


def _share(error: Floats, allowed: Floats, value: Floats, dtype: str) -> float:
    """Return the largest share of an allowance used beyond one forced rounding to ``dtype``."""
    form = FORMATS.get(dtype, FORMATS["float64"])
    forced = np.where(np.isfinite(value), form.unit_roundoff * np.abs(value) + underflow(form), 0.0)
    forced = np.minimum(forced, allowed)
    beyond, rest = np.maximum(error - forced, 0.0), allowed - forced
    shares = np.divide(beyond, rest, out=np.where(beyond > 0, np.inf, 0.0), where=rest > 0)
    return float(shares.max(initial=0.0))
