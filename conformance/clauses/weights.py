"""Clauses of the chapter on weights (docs/spec/weights.md)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.clauses.relations import wrong_weights
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure, token_failure
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.judge.logits import format_of
from moe_routing.conformance.judge.weights import sum_bounds
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Capabilities
from moe_routing.reference import Renormalize, RouterConfig
from moe_routing.reference.formats import FORMATS


@clause(
    "weights.match",
    "MUST",
    why="Wrong weights at right ids mix the experts wrongly; each is judged at the backend's "
    "own ids, so no token is ever skipped.",
    rules=(
        "WGT-2",
        "WGT-4",
        "WGT-5",
        "WGT-6",
        "WGT-7",
        "WGT-8",
        "WGT-9",
        "WGT-10",
        "PIPE-1",
        "LOG-4",
        "LOG-7",
        "SCO-1",
        "SCO-3",
        "SEL-13",
        "SEL-14",
        "LAY-2",
        "LAY-11",
    ),
    bugs=(
        *("M01", "M10", "M11", "M13", "M14", "M15", "M16", "M18", "M20", "M21", "M22", "M52"),
        *("M77", "M78"),
    ),
    events=(
        "weights-apart",
        "renormalized",
        "not-renormalized",
        "experts-scaled-apart",
        "hashed-and-scaled",
        "input-norm-beside-epsilon",
        "softplus-nearly-linear",
        "norm-of-another-order",
        "routes-above-65535",
        "batch-above-50000",
        "batch-of-many-experts",
        *members("mix"),
        *members("preset"),
        *members("published"),
        *members("shape"),
        "each-top-k",
        "softmax-of-more-than-1024",
    ),
    bulk=("bulk-of-many-experts",),
)
def match(trial: Trial) -> Failure | None:
    """A slot's weight is its expert's weight, up to rounding at the permitted precision."""
    return wrong_weights(trial.verdict)


@clause(
    "weights.unbiased",
    "MUST",
    why="The selection bias steers the load and nothing else; gathered from the biased scores, "
    "weights scale every expert by its popularity. Ten projects shipped it.",
    rules=("WGT-1",),
    bugs=("M01", "M79"),
    narrow={"selection_bias": ("gate", "block", "statics")},
    events=(
        "bias-decides",
        "bias-would-show-in-weights",
        "offset-bias",
        "bias-drowns-scores",
        "bias-blurs-scores",
    ),
    focus=Focus(biases=("steering", "offset", "normal", "negative")),
)
def unbiased(trial: Trial) -> Failure | None:
    """Weights come from the scores without the selection bias."""
    return wrong_weights(trial.verdict)


@clause(
    "weights.sum",
    "MUST",
    why="A dropped or doubled renormalisation changes the scale of every layer's output.",
    rules=("WGT-11", "WGT-5", "WGT-9"),
    bugs=("M13", "M16", "M20"),
    events=("renormalized", "renormalized-alone", "narrow-norm-of-16", "narrow-norm-of-32"),
    needs=lambda capabilities: _not_renormalizing(capabilities),
)
def total(trial: Trial) -> Failure | None:
    """Renormalised weights of a token sum to the routed scaling factor."""
    verdict, config = trial.verdict, trial.case.config
    if not sums_to_scale(config):
        raise Unchecked("its weights are not renormalised to a sum")
    if trial.case.inputs.per_expert_scale is not None:
        raise Unchecked("per_expert_scale changes the sums")
    ids = np.clip(verdict.answer.expert_ids, 0, config.num_experts - 1)
    bounds = sum_bounds(trial.bounds, verdict.later, ids)
    sums, permitted = verdict.answer.weights.sum(axis=1), bounds.permitted
    wrong = verdict.judged & verdict.decided & bounds.decided & ~permitted.contains(sums)
    if not wrong.any():
        return None
    t = int(np.argmax(wrong))
    return token_failure(
        verdict,
        t,
        stage="weights",
        summary=(
            f"weights[{t}] sum to {show(sums[t])}, but should sum to "
            f"[{show(permitted.lo[t])}, {show(permitted.hi[t])}]"
        ),
    )


def _not_renormalizing(capabilities: Capabilities) -> str | None:
    rules = (claim.renormalize for claim in capabilities.claims)
    if any(not isinstance(each, tuple) or any(each) for each in rules):
        return None
    return "nothing claimed has renormalize other than None"


def sums_to_scale(config: RouterConfig) -> bool:
    """Return whether a router's weights sum to its scale: plainly renormalised, without a floor."""
    rule = config.renormalize
    if config.weights_from == "softmax_of_selected" and rule is None:
        return True
    return rule is not None and rule.order == 1.0 and rule.floor == 0.0


def _with_more_additions(offered: Sequence[Renormalize | None]) -> list[Renormalize]:
    """Return the offered rules; those with an epsilon or a floor are repeated."""
    rules = [rule for rule in offered if rule is not None]
    return rules + [rule for rule in rules if max(rule.eps, rule.floor) > 0.0]


@clause(
    "weights.tiny-norm",
    "MUST",
    why="An epsilon that the model does not have, or a larger one, shows where the selected "
    "scores are tiny; so does one in the wrong branch.",
    rules=("WGT-5",),
    bugs=("M20",),
    events=(
        *("tiny-norm", "norm-below-floor", "norm-beside-epsilon", "floor-beside-epsilon"),
        "least-norm",
    ),
    needs=lambda capabilities: _not_renormalizing(capabilities),
    focus=Focus(
        recipes=("underflowing", "wide", "one-sided"),
        offers={"renormalize": lambda offered: _with_more_additions(offered)},
    ),
)
def tiny_norm(trial: Trial) -> Failure | None:
    """Weights are renormalised by exactly the configured epsilon and floor."""
    return wrong_weights(trial.verdict)


@clause(
    "weights.scale",
    "MUST",
    why="The routed scaling factor is skipped, applied twice, or applied only with "
    "renormalisation on, in a dozen shipped backends.",
    rules=("WGT-7",),
    bugs=("M21", "M22"),
    events=("scaled", "scaled-by-zero"),
    focus=Focus(offers={"scale": lambda offered: [x for x in offered if x != 1.0]}),
)
def scale(trial: Trial) -> Failure | None:
    """The routed scaling factor multiplies every weight, once, after renormalisation."""
    return wrong_weights(trial.verdict)


@clause(
    "weights.dtype",
    "MUST",
    why="Weights cast below the permitted precision, or to integers, lose what the router "
    "computed.",
    rules=("WGT-10", "LAY-6", "PIPE-4"),
    bugs=("M13",),
    events=("any-case", "bfloat16-input", "float16-input"),
    without_tokens=True,
)
def dtype(trial: Trial) -> Failure | None:
    """Weights are stored in a floating-point type that holds all of the permitted one."""
    stored = trial.received.answer.weights_dtype
    least = format_of(trial.case.config.weights_dtype, trial.case.inputs)
    form = FORMATS.get(stored)
    if form and form.precision >= least.precision and form.max_exponent >= least.max_exponent:
        return None
    return Failure(
        stage="weights",
        summary=f"weights are stored in {stored}, but should be in {least.name} or better",
    )
