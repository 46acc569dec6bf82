"""Clauses of the chapter on selection (docs/spec/selection.md)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.clauses.batches import Batch
from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.clauses.relations import agree, first_of
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure, first_failure
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.construct import with_inputs
from moe_routing.conformance.generators.plainer import with_logits
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.trial import Trial

_BIASED = ("gate", "block", "statics")


@clause(
    "selection.valid-top-k",
    "MUST",
    why="The heart of a router. Ties may go either way; everything else that rounding cannot "
    "explain sends tokens to experts that the model did not choose.",
    rules=("SEL-1", "SEL-10", "SEL-12", "SEL-13", "PIPE-1", "LOG-1", "SCO-4", "SCO-5", "ROB-6"),
    bugs=(
        *(
            "M04",
            "M06",
            "M10",
            "M11",
            "M12",
            "M24",
            "M25",
            "M28",
            "M33",
            "M35",
            "M36",
            "M38",
            "M52",
        ),
        *("M77", "M80"),
    ),
    events=(
        "tie-at-cut",
        "tie-of-positive-logits",
        "tie-of-negative-logits",
        "clear-winners",
        "fine-logits",
        "fine-logits-beside-16-bits",
        "fine-gate",
        "close-call",
        *("winners-in-one-lane", "winners-side-by-side", "last-bit-decides"),
        "ragged-columns",
        "all-negative-logits",
        "negative-zero-logit",
        "all-zero-logits",
        "logits-above-17",
        "saturated",
        "bias-decides",
        "norm-scale-decides",
        "group-excludes-better",
        "bfloat16-input",
        "float16-input",
        "one-selected",
        "odd-top-k",
        "all-but-one-selected",
        "top-k-above-15",
        "top-k-above-32",
        "all-to-first",
        "all-to-last",
        "idle-expert",
        "table-repeats-an-expert",
        "token-id-above-65535",
        "token-id-above-100000",
        "hidden-above-4096",
        "fine-hidden-above-4096",
        "published-width-of-groups",
        "batch-of-many-experts",
        "each-size",
        *members("published"),
        *members("shape"),
        *members("grouped-shape"),
        *members("wide"),
    ),
    bulk=("bulk-of-many-experts",),
)
def valid_top_k(trial: Trial) -> Failure | None:
    """The K experts selected are a top-K set of the biased scores that rounding permits."""
    return first_failure(trial.verdict, "selection")


@clause(
    "selection.distinct",
    "MUST",
    why="A duplicate runs one expert twice and another not at all, and crashes grouped kernels.",
    rules=("SEL-2", "ROB-5"),
    bugs=("M30", "M31", "M36"),
    narrow={"expert_table": (False,)},
    events=("tie-at-cut", "all-experts-selected", "underflow"),
    focus=Focus(recipes=("table", "one-sided", "underflowing", "saturated", "duplicated")),
)
def distinct(trial: Trial) -> Failure | None:
    """The K ids of a token are distinct."""
    return None if trial.verdict.distinct.all() else first_failure(trial.verdict, "selection")


@clause(
    "selection.in-range",
    "MUST",
    why="An id outside [0, E) reads past the experts' weights.",
    rules=("SEL-2", "LAY-7", "SHA-8"),
    bugs=("M28", "M30", "M31", "M44"),
    events=("any-case", "few-finite-bias", *members("winner")),
)
def in_range(trial: Trial) -> Failure | None:
    """Every id is in [0, E); -1 and ids from E on are reserved."""
    return None if trial.verdict.in_range.all() else first_failure(trial.verdict, "selection")


@clause(
    "selection.bias-steers",
    "MUST",
    why="A balancing bias that is ignored, added twice, rounded to bfloat16 or added before "
    "the score function leaves the load where it was.",
    rules=("SEL-4", "SEL-5", "SEL-10"),
    bugs=("M03", "M04", "M06", "M07"),
    narrow={"selection_bias": _BIASED},
    events=(
        "bias-decides",
        "fine-bias",
        "fine-bias-beside-16-bits",
        "rounded-bias",
        "bias-sums-to-0",
        "offset-bias",
        "negative-scores-win",
        "scores-below-minus-1-win",
        "scores-below-minus-10000-win",
        "winner-at-minus-1-or-below",
        "winner-at-minus-10000-or-below",
        "excluded-winner",
        "masked-bias",
        "one-finite-bias",
        "bias-decides-beyond-1024",
        "biased-in-many-sizes",
    ),
    focus=Focus(
        biases=("steering", "fine", "offset", "normal", "negative", "deep", "one-finite", "masked")
    ),
)
def bias_steers(trial: Trial) -> Failure | None:
    """The selection bias is added to the scores, once, in float32, before selection."""
    return Batch.of(trial).failure("selection")


@clause(
    "selection.zero-bias-is-no-bias",
    "MUST",
    why="A fresh checkpoint has a bias of zeros; it must route as if it had none.",
    rules=("SEL-6",),
    bugs=("M05", "M07"),
    narrow={"selection_bias": _BIASED},
    events=("zero-bias",),
    focus=Focus(biases=("zero",)),
)
def zero_bias_is_no_bias(trial: Trial) -> Failure | None:
    """A selection bias of zeros selects what no selection bias selects."""
    bias = trial.case.inputs.selection_bias
    if bias is None or bias.any():
        raise Unchecked("it has no selection bias of zeros")
    if (failure := first_failure(trial.verdict, "selection")) is not None:
        return failure
    plain = trial.another(trial.once(_without_bias)).bounds
    return first_failure(trial.judged_as(plain), "selection")


def _without_bias(case: Case) -> Case:
    return with_inputs(case, selection_bias=None)


@clause(
    "selection.bias-placement",
    "MUST",
    why="Models keep the bias on the gate, on the block or in a statics module; a backend that "
    "claims a place and does not look there routes without it.",
    rules=("SEL-4", "SEL-5", "SEL-7"),
    bugs=("M04", "M05", "M06"),
    narrow={"selection_bias": _BIASED},
    events=(
        "bias-on-gate",
        "bias-on-block",
        "bias-on-statics",
        "fine-bias",
        "fine-bias-beside-16-bits",
    ),
    focus=Focus(biases=("steering", "fine", "normal"), recipes=("table", "lattice", "normal")),
)
def bias_placement(trial: Trial) -> Failure | None:
    """The selection bias steers alike from every place that is claimed for it."""
    return first_of(partial(_placed, trial, place) for place in _BIASED)


def _placed(trial: Trial, place: str) -> Failure | None:
    moved = trial.once(_with_bias_on, place)
    if moved.inputs.selection_bias is None or not trial.claims(moved):
        raise Unchecked(f"with a bias on the {place} it would not be claimed")
    other = trial.of(moved)
    if (failure := first_failure(other.verdict, "selection", "weights")) is not None:
        return replace(failure, summary=f"with the bias on the {place}: {failure.summary}")
    return agree(trial, other, f"the bias on the {place}")


def _with_bias_on(case: Case, place: str) -> Case:
    return with_inputs(case, selection_bias_on=place)


@clause(
    "selection.every-expert-can-win",
    "MUST",
    why="Scans that stop at 32 or 256 experts, ids held in 8 or 9 bits, and tails lost where E "
    "is no power of two starve the last experts in silence.",
    rules=("SEL-8", "ROB-3"),
    bugs=("M35", "M36", "M44"),
    narrow={"expert_table": (False,)},
    events=(
        "every-expert-wins",
        "winner-above-31",
        "winner-above-127",
        "winner-above-255",
        "winner-above-511",
        "experts-above-1024",
        *members("experts"),
    ),
    focus=Focus(
        recipes=("table",),
        offers={"num_tokens": lambda offered: [n for n in offered if 0 < n <= 9]},
    ),
)
def every_expert_can_win(trial: Trial) -> Failure | None:
    """Every expert, up to the last, is selected where its score is the greatest."""
    return first_failure(trial.of(trial.once(_sweep)).verdict, "selection")


def _sweep(case: Case) -> Case:
    """Return the case with tokens that each favour one expert, the last experts first.

    Only an identity gate can be swept, whose hidden states are the logits, and a float32 gate that
    carries given logits.
    """
    inputs = case.inputs
    if inputs.logits is not None and inputs.gate_dtype == "float32":
        return with_logits(case, _raised(inputs.logits))
    square = inputs.hidden_size == inputs.num_experts
    if not square or not (inputs.gate_weight == np.eye(inputs.num_experts)).all():
        return case
    hidden = _raised(inputs.hidden)
    logits = None if inputs.logits is None else hidden
    return with_inputs(case, hidden=hidden, logits=logits)


def _raised(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return logits of which each token's favours one expert, the last experts first."""
    raised, tokens = np.array(logits), np.arange(len(logits))
    raised[tokens, raised.shape[1] - 1 - tokens % raised.shape[1]] = 8.0
    return raised


@clause(
    "selection.k-equals-e",
    "MUST",
    why="At K = E partial sorts are off by one and kernels run out of lanes.",
    rules=("SEL-9", "ROB-3"),
    bugs=("M38",),
    narrow={"expert_table": (False,)},
    events=("all-experts-selected",),
    focus=Focus(
        offers={
            "top_k": lambda offered: offered[-1:],
            "groups.kept": lambda offered: list(offered)[-1:],
        }
    ),
)
def k_equals_e(trial: Trial) -> Failure | None:
    """With K = E every expert is selected, once."""
    return first_failure(trial.verdict, "selection", "weights")
