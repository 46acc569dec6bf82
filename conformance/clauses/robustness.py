"""Clauses of the chapter on robustness (docs/spec/robustness.md)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.clauses import claim_story
from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.clauses.relations import (
    nan,
    overflowing,
    poisoned,
    poisoned_row,
    raised,
    zero,
)
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure, at, first_failure
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.choices import Focus, choose_case
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.generators.neighbours import neighbours
from moe_routing.conformance.generators.nonsense import bad_configs
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.judge import Verdict
from moe_routing.conformance.judge.logits import format_of
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Capabilities, Limits
from moe_routing.reference.formats import Bools, Floats


@clause(
    "robustness.answers",
    "MUST",
    why="A backend that raises on what it claims stops a training run; where it cannot, it "
    "should not claim.",
    rules=("ROB-14", "ROB-3"),
    bugs=("M09", "M14", "M24", "M38", "M53"),
    events=("any-case", "all-experts-selected", "no-bias", "zero-bias", "one-group"),
    without_tokens=True,
)
def answers(trial: Trial) -> Failure | None:
    """A claimed call is answered: no exception."""
    failure = raised(trial)
    return failure and replace(failure, details=(*claim_story.claimed(trial), *failure.details))


@clause(
    "robustness.empty-batch",
    "MUST",
    why="A rank without tokens is ordinary under expert parallelism and at the end of an epoch.",
    rules=("ROB-1", "LAY-1"),
    bugs=("M53",),
    events=("empty-batch",),
    without_tokens=True,
    focus=Focus(offers={"num_tokens": lambda offered: [n for n in offered if n == 0]}),
)
def empty_batch(trial: Trial) -> Failure | None:
    """No tokens give an empty answer of the right shape."""
    case = trial.once(take_tokens, ())
    if not trial.claims(case):
        raise Unchecked("no tokens would not be claimed")
    empty = trial.of(case)
    return raised(empty) or first_failure(empty.verdict, "selection", "weights")


@clause(
    "robustness.one-token",
    "MUST",
    why="Decoding routes one token at a time, often through a path of its own.",
    rules=("ROB-2",),
    bugs=("M38", "M53"),
    events=("one-token",),
    focus=Focus(offers={"num_tokens": lambda offered: [n for n in offered if n == 1]}),
)
def one_token(trial: Trial) -> Failure | None:
    """A single token is routed like any other."""
    return first_failure(trial.verdict, "selection", "weights")


@clause(
    "robustness.large-logits",
    "MUST",
    why="exp overflows float32 from 89 on: a softmax must subtract its maximum first.",
    rules=("ROB-4", "SCO-2"),
    bugs=("M28",),
    events=("large-logits", *members("large-logit-of")),
    focus=Focus(recipes=("wide", "saturated")),
)
def large_logits(trial: Trial) -> Failure | None:
    """Logits whose exponential overflows are routed like any others."""
    return first_failure(trial.verdict, "selection", "weights")


@clause(
    "robustness.underflow",
    "MUST",
    why="Where every selected score underflows, a norm without its epsilon divides 0 by 0, and "
    "one NaN token poisons the batch.",
    rules=("ROB-5", "WGT-5"),
    bugs=("M20", "M28"),
    events=("underflow", "logits-below-minus-100", "tiny-softplus"),
    focus=Focus(recipes=("underflowing", "wide")),
)
def underflow(trial: Trial) -> Failure | None:
    """Underflowing scores are routed rightly, and a norm with an epsilon gives no NaN."""
    if (failure := first_failure(trial.verdict, "selection", "weights")) is not None:
        return failure
    rule = trial.case.config.renormalize
    form = format_of(trial.case.config.scores_dtype, trial.case.inputs)
    if rule is None or max(rule.eps, rule.floor) < form.tiny:
        return None
    bad = ~np.isfinite(trial.verdict.answer.weights) & trial.verdict.judged[:, None]
    bad &= np.isfinite(trial.bounds.reference.weights) & ~_of_nothing(trial.verdict)[:, None]
    if not bad.any():
        return None
    t, k = np.argwhere(bad)[0]
    return Failure(
        stage="weights",
        token=int(t),
        summary=(
            f"{at('weights', t, k)}={show(trial.verdict.answer.weights[t, k])}, but {rule} "
            "keeps the norm above 0"
        ),
    )


def _of_nothing(verdict: Verdict) -> Bools:
    """Return which tokens' weights are a softmax over -inf alone: other experts may tie there."""
    if verdict.bounds.config.weights_from != "softmax_of_selected":
        return np.zeros(len(verdict.judged), dtype=bool)
    operated = verdict.bounds.reference.operated
    selected = np.take_along_axis(operated, verdict.answer.expert_ids, axis=1)
    least: Bools = np.equal(selected, -np.inf)
    return np.asarray(least.all(axis=1))


@clause(
    "robustness.nan-row",
    "MUST",
    why="One NaN token must not crash the batch with duplicate or wild ids, nor touch its "
    "neighbours: eight projects shipped one or the other.",
    rules=("ROB-7", "ROB-8", "ROB-10"),
    bugs=("M31",),
    events=("nan-row", "nan-logit"),
    focus=Focus(recipes=("table", "normal", "lattice")),
)
def nan_row(trial: Trial) -> Failure | None:
    """A row of NaN gets distinct ids in range, and the other rows are routed as ever."""
    with_nan = poisoned(trial, nan)
    return raised(with_nan) or first_failure(with_nan.verdict, "selection", "weights")


@clause(
    "robustness.nan-row-apart",
    "SHOULD",
    why="Nothing of a NaN row should reach the others, not even a rounding.",
    rules=("ROB-9",),
    bugs=("M31",),
    events=("nan-row",),
    focus=Focus(recipes=("table", "normal", "lattice")),
)
def nan_row_apart(trial: Trial) -> Failure | None:
    """Rows beside a row of NaN get the bits of a call of the same shape without it."""
    if trial.case.inputs.num_tokens == 0:
        raise Unchecked("the case has no tokens")
    zeroed, with_nan = poisoned(trial, zero), poisoned(trial, nan)
    good = np.ones(trial.case.inputs.num_tokens, dtype=bool)
    good[poisoned_row(trial.case)] = False
    for name in ("expert_ids", "weights"):
        clean: Floats = getattr(zeroed.received.answer, name)[good]
        found: Floats = getattr(with_nan.received.answer, name)[good]
        nan_before = np.isnan(trial.case.inputs.hidden[good]).any(axis=1)
        same: Bools = np.asarray((clean == found) | (np.isnan(clean) & np.isnan(found)))
        same[nan_before] = True
        if not same.all():
            i, k = np.argwhere(~same)[0]
            return Failure(
                stage="selection" if name == "expert_ids" else "weights",
                token=int(np.flatnonzero(good)[i]),
                summary=(
                    f"{at(name, np.flatnonzero(good)[i], k)}={found[i, k]} next to a row of NaN, "
                    f"but {clean[i, k]} without it"
                ),
            )
    return None


@clause(
    "robustness.infinite-logit",
    "MUST",
    why="An overflowing row must keep to its own row and to ids in range; an expert masked with "
    "-inf must lose.",
    rules=("ROB-11", "ROB-15", "ROB-7", "ROB-10"),
    bugs=("M28", "M31"),
    events=(
        "infinite-logit",
        "plus-infinity",
        "lost-expert",
        "few-finite-logits",
        "all-but-first-lost",
        "no-finite-logit",
        *members("lost-block-of"),
    ),
    focus=Focus(
        recipes=("table", "normal", "lattice"),
        offers={
            "optional arrays": lambda offered: [
                *offered,
                *[parts for parts in offered if "gate_bias" in parts] * 3,
            ],
            "gate_bias": lambda offered: [name for name in offered if name != "quarters"],
        },
    ),
)
def infinite_logit(trial: Trial) -> Failure | None:
    """Overflowing logits give distinct ids in range, -inf logits lose, other rows are right."""
    if trial.case.recipe == "constructed" or trial.case.inputs.logits is not None:
        return raised(trial) or first_failure(trial.verdict, "selection", "weights")
    largest = poisoned(trial, overflowing)
    return raised(largest) or first_failure(largest.verdict, "selection", "weights")


@clause(
    "robustness.rejects-bad-config",
    "MUST",
    why="K above E, or above what the kept groups hold, has no right answer; a backend that "
    "gives one routes to experts that the model excluded.",
    rules=("ROB-12", "GRP-8"),
    bugs=("M38",),
    narrow={"expert_table": (False,)},
    events=("any-case", "groups-excluded", "several-groups-kept"),
)
def rejects_bad_config(trial: Trial) -> Failure | None:
    """A configuration without a right answer is rejected with an exception."""
    if trial.case.inputs.num_tokens == 0:
        raise Unchecked("the case has no tokens")
    for words, case in trial.once(bad_configs).items():
        try:
            answer = trial.of(case).native
        except Raised:
            continue
        return Failure(
            stage="selection",
            summary=f"{words} was answered ({type(answer).__name__}), but should be rejected",
            made=case,
        )
    return None


def _claimed_or_not(capabilities: Capabilities) -> Seeded[Case]:
    whole = Capabilities(takes=capabilities.takes, layouts=capabilities.layouts)

    def make(choose: Choose) -> Case:
        return choose_case(choose, choose("claims", (capabilities, whole)), Focus())

    return Seeded(make)


@clause(
    "robustness.rejects-unclaimed",
    "MUST",
    why="An answer to what it does not do is worse than none: it looks like one.",
    rules=("ROB-13", "ROB-3"),
    bugs=("M14", "M87"),
    events=("any-case", "outside-claims"),
    without_tokens=True,
    strategy=_claimed_or_not,
    beyond_claims=True,
)
def rejects_unclaimed(trial: Trial) -> Failure | None:
    """A call that the backend does not claim raises Unsupported."""
    if not trial.claims(trial.case):
        return claim_story.not_refused(trial)
    near = trial.once(_one_axis_away, trial.capabilities.limits)
    outside = [case for case in near if not (trial.claims(case) or trial.excuses(case))]
    if not outside:
        raise Unchecked("the case and all that is one axis away from it are claimed, or known")
    for case in outside:
        if (failure := claim_story.not_refused(trial.of(case))) is not None:
            return replace(failure, case=case)
    return None


def _one_axis_away(case: Case, limits: Limits) -> list[Case]:
    few = range(min(case.inputs.num_tokens, max(3, limits.min_tokens)))
    return [*neighbours(take_tokens(case, few), limits)]
