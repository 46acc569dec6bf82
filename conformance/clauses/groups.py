"""Clauses of the chapter on groups (docs/spec/groups.md)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.clauses.batches import Batch
from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.clauses.relations import raised
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.failure import Failure, first_failure, token_failure
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.construct import take_tokens, with_config
from moe_routing.conformance.generators.nonsense import ragged_counts
from moe_routing.conformance.judge import Verdict
from moe_routing.conformance.judge.selection import certain_groups, possible_groups
from moe_routing.conformance.trial.base import Unchecked
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Capabilities
from moe_routing.reference import Groups
from moe_routing.reference.formats import Bools, Ids

_GROUPED = {"groups": (True,), "expert_table": (False,)}


@clause(
    "groups.kept-only",
    "MUST",
    why="Group-limited routing bounds how many devices a token visits; an expert outside the "
    "kept groups breaks that bound.",
    rules=("GRP-1", "GRP-2", "GRP-3", "GRP-5"),
    bugs=("M24", "M25", "M26"),
    narrow=_GROUPED,
    events=(
        "group-excludes-better",
        "max-and-sum-disagree",
        "sum-and-max-disagree",
        "share-keeps-others",
        "equals-make-a-group",
        "keeps-excluded-group",
        "fewer-slots-than-groups",
        "kept-groups-chosen-whole",
        "one-group-kept",
        "two-groups",
        "eight-groups",
        "wide-groups",
        "grouped-in-many-sizes",
        *members("grouped-shape"),
    ),
    focus=Focus(
        recipes=("table", "near-group-ties", "normal", "one-sided", "lattice"),
        biases=("steering", "normal", "negative", "offset", "zero"),
    ),
)
def kept_only(trial: Trial) -> Failure | None:
    """Every selected expert belongs to one of the kept groups, where those hold K experts
    whose scores are above the fill.
    """
    if trial.case.config.groups is None:
        raise Unchecked("it has no groups")
    _, verdict = Batch.of(trial).judged()
    return _strays(verdict) and _strays(trial.verdict)


def _strays(verdict: Verdict) -> Failure | None:
    """Return the first token with an expert beyond the kept groups, as its failure."""
    config = verdict.bounds.config
    assert config.groups is not None, "the clause narrows to groups"
    later, size = verdict.later, config.experts_per_group
    possible = possible_groups(later.competing, config.groups, later.group_format)
    chosen = np.clip(verdict.answer.expert_ids, 0, config.num_experts - 1) // size
    inside = np.take_along_axis(possible, chosen, axis=1).all(axis=1)
    ordered = np.sort(chosen, axis=1)
    visited = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1)
    held = verdict.judged & verdict.in_range & verdict.distinct
    held &= _fewest_above_fill(verdict, possible) >= config.top_k
    wrong = held & ~(inside & (visited <= config.groups.kept))
    if not wrong.any():
        return None
    t = int(np.argmax(wrong))
    return token_failure(
        verdict,
        t,
        stage="selection",
        summary=(
            f"expert_ids[{t}]={verdict.answer.expert_ids[t].tolist()} visit groups "
            f"{sorted(set(chosen[t].tolist()))}, but should stay in {config.groups.kept} of "
            f"{np.flatnonzero(possible[t]).tolist()}"
        ),
    )


def _fewest_above_fill(verdict: Verdict, possible: Bools) -> Ids:
    """Count the experts certainly above the fill in the kept groups, whichever those are."""
    later, config = verdict.later, verdict.bounds.config
    groups, size = config.groups, config.experts_per_group
    assert groups is not None, "the clause narrows to groups"
    certain, _ = certain_groups(later.competing, groups, later.group_format)
    above = (later.competing.lo > groups.fill).reshape(*possible.shape, size).sum(axis=2)
    order = np.where(certain, -1, np.where(possible, above, size + 1))
    kept = np.argsort(order, axis=1)[:, : groups.kept]
    fewest: Ids = np.take_along_axis(above, kept, axis=1).sum(axis=1)
    return fewest


@clause(
    "groups.one-group",
    "MUST",
    why="Many checkpoints ship n_group=1; group code that runs anyway must change nothing.",
    rules=("GRP-7",),
    bugs=("M25",),
    narrow=_GROUPED,
    events=("one-group",),
    focus=Focus(offers={"groups.count": lambda offered: [n for n in offered if n == 1]}),
)
def one_group(trial: Trial) -> Failure | None:
    """A single group selects what no groups select."""
    return _as_ungrouped(trial)


@clause(
    "groups.all-kept",
    "MUST",
    why="Keeping every group is no limit; a stray mask or fill shows here.",
    rules=("GRP-7",),
    bugs=("M25", "M26"),
    narrow=_GROUPED,
    events=("all-groups-kept",),
    focus=Focus(offers={"groups.kept": lambda offered: list(offered)[-1:]}),
)
def all_kept(trial: Trial) -> Failure | None:
    """Groups that are all kept select what no groups select."""
    return _as_ungrouped(trial)


def _as_ungrouped(trial: Trial) -> Failure | None:
    groups = trial.case.config.groups
    if groups is None or groups.kept != groups.count or groups.from_each:
        raise Unchecked("it does not keep every group")
    if (failure := first_failure(trial.verdict, "selection")) is not None:
        return failure
    plain = trial.another(trial.once(_without_groups)).bounds
    return first_failure(trial.judged_as(plain), "selection")


def _without_groups(case: Case) -> Case:
    return replace(case, config=replace(case.config, groups=None))


def _gives_shares(capabilities: Capabilities) -> str | None:
    """Return what is lacking where no claim has groups that each give a share."""
    rules = (rule for claim in capabilities.claims for rule in claim.groups if rule is not None)
    if any(True in rule.from_each for rule in rules):
        return None
    return "nothing claimed has groups with from_each=True"


@clause(
    "groups.from-each",
    "MUST",
    why="Where every group gives its share of the experts, each device has as much to do; the K "
    "best of all, or weights that hold the bias, look alike and are another model.",
    rules=("GRP-10",),
    bugs=("M01", "M24", "M25", "M36"),
    narrow=_GROUPED,
    needs=_gives_shares,
    promise="from_each",
    events=(
        "share-passes-over-better",
        "share-of-one",
        "share-of-several",
        "share-biased",
        "share-under-bias",
        "share-tied",
        "share-of-many-groups",
        "share-of-many-tokens",
    ),
    focus=Focus(
        offers={
            "groups": lambda offered: [x for x in offered if x and True in x.from_each],
            "groups.from_each": lambda offered: [each for each in offered if each],
        }
    ),
)
def from_each(trial: Trial) -> Failure | None:
    """Where every group gives K / count experts, these are its best, with unbiased weights."""
    groups = trial.case.config.groups
    if groups is None or not groups.from_each:
        raise Unchecked("it has no groups that each give a share")
    return first_failure(trial.verdict, "selection", "weights")


@clause(
    "groups.negative-scores",
    "MUST",
    why="With biased scores below zero, a mask that fills excluded experts with 0 makes every "
    "one of them a winner: at least six projects shipped it.",
    rules=("GRP-4", "GRP-6", "WGT-3"),
    bugs=("M26", "M28"),
    narrow=_GROUPED,
    events=("kept-score-below-fill", "excluded-expert-chosen", "masked-bias-excluded"),
    focus=Focus(
        biases=("negative", "deep", "steering", "one-finite"),
        recipes=("table", "one-sided", "underflowing", "normal"),
    ),
)
def negative_scores(trial: Trial) -> Failure | None:
    """Excluded experts compete with the configured fill, whatever the sign of the scores."""
    return first_failure(trial.verdict, "selection", "weights")


@clause(
    "groups.smaller-than-top",
    "MUST",
    why="Groups of one expert are legal, and a top-2 sum over them raises or reads beyond them.",
    rules=("GRP-9",),
    bugs=("M24", "M38"),
    narrow=_GROUPED,
    events=("group-smaller-than-top", "groups-of-one"),
    focus=Focus(offers={"groups.count": lambda offered: list(offered)[-1:]}),
)
def smaller_than_top(trial: Trial) -> Failure | None:
    """A group with fewer experts than its score sums is scored by those it has."""
    return raised(trial) or first_failure(trial.verdict, "selection", "weights")


@clause(
    "groups.ragged-rejected",
    "MUST",
    why="E not divisible by the group count reshapes the buffer across tokens: other tokens "
    "then change a token's experts, in silence.",
    rules=("GRP-8", "ROB-12"),
    bugs=("M36", "M52"),
    narrow=_GROUPED,
    events=("ragged-groups",),
    focus=Focus(
        offers={"num_experts": lambda offered: [n for n in offered if n <= 64 and ragged_counts(n)]}
    ),
)
def ragged_rejected(trial: Trial) -> Failure | None:
    """A group count that does not divide E is rejected, whatever T is."""
    ragged = trial.once(_ragged)
    if not ragged:
        raise Unchecked("it has no tokens, or no number of groups leaves some of its experts over")
    for case in ragged:
        try:
            answer = trial.of(case).native
        except Raised:
            continue
        config = case.config
        groups = config.groups.count if config.groups else 0
        return Failure(
            stage="selection",
            summary=(
                f"{config.num_experts} experts in {groups} groups were answered for "
                f"T={case.inputs.num_tokens} ({type(answer).__name__}), but should be rejected: "
                "groups are of equal size"
            ),
            made=case,
        )
    return None


def _ragged(case: Case) -> list[Case]:
    """Return cases of unequal groups: of one token, and of as many as look like equal groups."""
    groups, tokens = case.config.groups, case.inputs.num_tokens
    counts = ragged_counts(case.config.num_experts)
    if groups is None or not counts or tokens == 0:
        return []
    size = case.config.num_experts // counts[0]
    whole = counts[0] * size  # of as many tokens, T * E is a multiple of a row
    top_k = min(case.config.top_k, whole)  # a claimed K: only the groups are a reason to reject
    if groups.from_each:
        ragged, top_k = replace(groups, count=counts[0], kept=counts[0]), counts[0]
    else:
        kept = math.ceil(top_k / size)
        ragged = Groups(count=counts[0], kept=kept, top=groups.top, fill=groups.fill)
    return [
        with_config(take_tokens(case, np.arange(n) % tokens), groups=ragged, top_k=top_k)
        for n in (1, whole)
    ]
