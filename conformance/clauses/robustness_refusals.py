"""Clauses of the chapter on robustness (docs/spec/robustness.md): what has to be refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.clauses import claim_story
from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.generators.neighbours import neighbours
from moe_routing.conformance.generators.nonsense import bad_configs
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Capabilities, Limits

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


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


def _claimed_or_not(capabilities: Capabilities) -> SearchStrategy[Case]:
    from moe_routing.conformance.generators.strategies import routing_cases

    whole = Capabilities(takes=capabilities.takes)
    return routing_cases(capabilities) | routing_cases(whole)


@clause(
    "robustness.rejects-unclaimed",
    "MUST",
    why="An answer to what it does not do is worse than none: it looks like one.",
    rules=("ROB-13", "ROB-3"),
    bugs=("M14",),
    events=("outside-claims",),
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
    return [*neighbours(take_tokens(case, range(min(case.inputs.num_tokens, 3))), limits)]
