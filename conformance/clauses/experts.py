"""Clauses of the chapter on experts (docs/spec/experts.md)."""

from __future__ import annotations

from moe_routing.conformance.clauses.experts_calls import experts_clause, held, lists
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.experts import experts_failure
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.trial.experts import ExpertsTrial
from moe_routing.reference.formats import Bools

ACTIVATIONS = members("ran-activation")
SIZES = tuple(
    slug
    for family in ("tokens", "experts", "slots", "rows", "columns", "width", "large", "mixed")
    for slug in members(f"ran-{family}")
)


@experts_clause(
    "match",
    "An activation that is nearly the right one, or halves that are swapped, train and serve badly "
    "and never crash.",
    rules=("EXP-1", "EXP-2", "EXP-3", "EXP-4"),
    bugs=("M13", "M35", "M36", "M38", "M41", "M44", "M52", "M63", "M82", "M83", "M84"),
    events=(
        *ACTIVATIONS,
        "ran-limit",
        "ran-alpha",
        "ran-several",
        "ran-gated",
        "ran-plain",
        "ran-square",
        "ran-half-as-wide",
        "ran-negative-weights",
        *SIZES,
    ),
)
def match(trial: ExpertsTrial) -> Failure | None:
    """The output is the weighted sum of what the chosen experts make of a token."""
    return held("match", trial)


@experts_clause(
    "exact",
    "Sums below float32, or products of operands that were cut, hide in the bounds of ordinary "
    "numbers.",
    rules=("EXP-5",),
    bugs=("M85",),
    events=("ran-exact", "ran-exact-wide", "ran-several"),
    offers={"values": ("exact",)},
    needs=lists("activations", "relu"),
)
def exact(trial: ExpertsTrial) -> Failure | None:
    """An output that no order of operations rounds is right to the last bit."""
    return held("exact", trial, trial.layer.exact) if trial.wrong.any() else None


@experts_clause(
    "one-hot",
    "With a single weight of 1 a layer is one MLP: whatever differs is no rounding of the sum.",
    rules=("EXP-1",),
    bugs=("M52", "M63"),
    events=("ran-one-hot", "ran-one-hot-on-input"),
    weights="one-hot",
    offers={"top_k": (2, 3, 4, 6, 8), "absence": ("none",), "repeats": (False,)},
)
def one_hot(trial: ExpertsTrial) -> Failure | None:
    """With one weight of 1 and others of 0, the output is that expert's answer."""
    weights = trial.case.inputs.weights
    alone = ((weights == 1.0).sum(axis=1) == 1) & ((weights != 0.0).sum(axis=1) == 1)
    return held("one-hot", trial, alone)


@experts_clause(
    "weight-on-output",
    "On the input a weight goes through the activation: the expert answers another question.",
    rules=("EXP-6",),
    bugs=("M63", "M84"),
    events=("ran-weight-on-output", "ran-weights-differ"),
    offers={"weight_on": ("output",)},
    needs=lists("weight_on", "output"),
)
def weight_on_output(trial: ExpertsTrial) -> Failure | None:
    """A routing weight scales the output of its expert, once."""
    return held("weight-on-output", trial) if _weighs(trial, "output") else None


@experts_clause(
    "weight-on-input",
    "Llama 4 scales what goes into an expert; on the output the activation sees larger numbers.",
    rules=("EXP-7",),
    bugs=("M63", "M84"),
    events=("ran-weight-on-input",),
    offers={"weight_on": ("input",)},
    needs=lists("weight_on", "input"),
)
def weight_on_input(trial: ExpertsTrial) -> Failure | None:
    """Where it is claimed, a routing weight scales the input of its expert, once."""
    return held("weight-on-input", trial) if _weighs(trial, "input") else None


def _weighs(trial: ExpertsTrial, where: str) -> bool:
    return trial.case.config.weight_on == where


@experts_clause(
    "bias-weighted",
    "A bias that is added once a slot and not weighted is a constant offset: losses start high.",
    rules=("EXP-8",),
    bugs=("M04", "M63"),
    events=("ran-biases",),
    offers={"biases": (True,)},
    needs=lists("biases", True),
)
def bias_weighted(trial: ExpertsTrial) -> Failure | None:
    """Biases are added where they belong: before the activation, and under the routing weight."""
    return held("bias-weighted", trial) if trial.case.inputs.has_biases else None


@experts_clause(
    "zero-weight",
    "A weight of 0 is how padding, and a router that is sure, say that an expert does not matter.",
    rules=("EXP-9",),
    bugs=("M48", "M63"),
    events=("ran-zero-weight",),
    weights="zeros",
    offers={"weight_on": ("output",)},
    needs=lists("weight_on", "output"),
)
def zero_weight(trial: ExpertsTrial) -> Failure | None:
    """A route of weight 0 adds exactly 0 wherever its expert answers a finite number."""
    return held("zero-weight", trial, _has_zero(trial)) if _weighs(trial, "output") else None


@experts_clause(
    "zero-weight-overflow",
    "0 times infinity is NaN: an expert that should not matter takes the token with it.",
    level="SHOULD",
    rules=("EXP-10",),
    bugs=("M48",),
    events=("ran-zero-weight-overflow",),
    weights="zeros",
    poison="idle",
    offers={"weight_on": ("output",)},
    needs=lists("weight_on", "output"),
)
def zero_weight_overflow(trial: ExpertsTrial) -> Failure | None:
    """A route of weight 0 adds exactly 0 even where its expert overflows."""
    if not _weighs(trial, "output"):
        return None
    due = trial.layer.skipping
    wrong = ~due.contains(trial.output) & _has_zero(trial)[:, None]
    if not wrong.any():
        return None
    return experts_failure("zero-weight-overflow", trial.layer, trial.output, wrong, due)


def _has_zero(trial: ExpertsTrial) -> Bools:
    zero: Bools = (trial.layer.present & (trial.case.inputs.weights == 0.0)).any(axis=1)
    return zero
