"""One token of a verdict as plain values: every expert's inputs, bounds and results.

For drawing and explaining a failure: no arrays, nothing of the judge, so that a
view can be kept, sent to another process and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge import Interval, Verdict
from moe_routing.reference import RouterConfig
from moe_routing.reference.logits import normalize_input

Span = tuple[float, float]
"""The lowest and the highest value that rounding permits."""

SHOWN = 12
"""The experts, groups, slots and values that are shown of one token, at most: what a person
compares at a glance."""


@dataclass(frozen=True, kw_only=True)
class ExpertView:
    """One expert: its value at each stage, what was permitted, and whether it was chosen.

    ``rank`` is its place: those that the reference chose come first, then kept groups.
    ``logit`` and ``score`` are the reference's, ``own_logit`` the answer's, if it gave any;
    ``bias`` is the selection bias, if there is one.
    ``competing`` is what it competes with: the scores with the selection bias, or, where
    the judge needs no softmax denominator, the numerators. ``kept`` says whether the
    reference keeps its group, ``answered`` and ``due`` whether the answer and the
    reference chose it.
    """

    id: int
    rank: int
    group: int | None
    kept: bool
    logit: float
    permitted_logit: Span
    own_logit: float | None
    score: float
    bias: float | None
    competing: Span
    answered: bool
    due: bool

    @property
    def logit_right(self) -> bool:
        """Whether the answer's own logit, if it gave any, is one that is permitted."""
        low, high = self.permitted_logit
        return self.own_logit is None or not (self.own_logit < low or self.own_logit > high)


@dataclass(frozen=True, kw_only=True)
class SlotView:
    """One of the K slots of the answer: its expert, its weight, and what was permitted.

    ``permitted`` is None where the id is no expert.
    """

    expert: int
    weight: float
    permitted: Span | None
    right: bool


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """One group of experts: its score, and whether the reference keeps it."""

    id: int
    score: float
    kept: bool


@dataclass(frozen=True, kw_only=True)
class NormedView:
    """The hidden state of a token whose input is normalised: its first values and the normed ones.

    ``size`` is how many values the whole row has.
    """

    hidden: tuple[float, ...]
    normed: tuple[float, ...]
    size: int


@dataclass(frozen=True, kw_only=True)
class TokenView:
    """One token: the experts that matter, best first, the answer's slots, the groups.

    ``cut`` is what an expert must be able to reach to be selected: the K-th highest of
    what the experts of the kept groups reach at least. None where nothing competes, and
    where the token's scores are undefined (``judged`` is False). ``explained`` says whether
    rounding can explain the experts chosen, all of them distinct and in range. ``hidden`` experts
    are left out, none of them chosen or due. ``input`` is there where the input is normalised,
    ``share`` where every group gives so many experts: each then has a cut of its own.
    """

    token: int
    judged: bool
    explained: bool
    cut: float | None
    experts: tuple[ExpertView, ...]
    hidden: int
    slots: tuple[SlotView, ...]
    due: tuple[int, ...]
    groups: tuple[GroupView, ...]
    input: NormedView | None = None
    share: int | None = None


def token_view(verdict: Verdict, token: int) -> TokenView:
    """Return the view of one token, with the experts that matter."""
    order = _best_first(verdict, token)
    matter = _those_that_matter(verdict, token, order)
    return TokenView(
        token=token,
        judged=bool(verdict.judged[token]),
        explained=_explained(verdict, token),
        cut=_cut(verdict, token),
        experts=tuple(_expert(verdict, token, order[rank], rank) for rank in sorted(matter)),
        hidden=len(order) - len(matter),
        slots=_slots(verdict, token),
        due=tuple(verdict.bounds.reference.expert_ids[token].tolist()),
        groups=_groups(verdict, token),
        input=_input(verdict, token),
        share=_share(verdict.bounds.config),
    )


def _explained(verdict: Verdict, token: int) -> bool:
    stages = (verdict.in_range, verdict.distinct, verdict.selection)
    return all(bool(stage[token]) for stage in stages)


def _best_first(verdict: Verdict, token: int) -> list[int]:
    """Return all experts: those that are due, those of kept groups, then the others."""
    reference, best = verdict.bounds.reference, verdict.later.competing.hi[token]
    due, kept = set(reference.expert_ids[token].tolist()), reference.kept[token]
    return sorted(range(len(kept)), key=lambda e: (e not in due, not kept[e], -best[e], e))


def _those_that_matter(verdict: Verdict, token: int, order: Sequence[int]) -> set[int]:
    """Return the places of the chosen, the due, wrong logits, the next best, and of some more."""
    answered = set(verdict.answer.expert_ids[token].tolist())
    due = set(verdict.bounds.reference.expert_ids[token].tolist())
    missed = np.zeros(0, bool) if verdict.logits is None else ~verdict.logits[token]
    named = answered | due | set(np.flatnonzero(missed)[:SHOWN].tolist())
    matter = {rank for rank, e in enumerate(order) if e in named or rank == len(due)}
    others = [rank for rank in range(len(order)) if rank not in matter]
    return matter | set(others[: max(0, SHOWN - len(matter))])


def _cut(verdict: Verdict, token: int) -> float | None:
    bounds = verdict.bounds
    if not verdict.judged[token] or bounds.inputs.expert_table is not None:
        return None
    fill = bounds.config.groups.fill if bounds.config.groups else -np.inf
    reached = np.where(bounds.reference.kept[token], verdict.later.competing.lo[token], fill)
    return float(np.sort(reached)[-bounds.config.top_k])


def _share(config: RouterConfig) -> int | None:
    groups = config.groups
    return config.top_k // groups.count if groups is not None and groups.from_each else None


def _expert(verdict: Verdict, token: int, expert: int, rank: int) -> ExpertView:
    config, reference, own = verdict.bounds.config, verdict.bounds.reference, verdict.answer.logits
    bias = verdict.bounds.inputs.selection_bias
    return ExpertView(
        id=expert,
        rank=rank,
        group=None if config.groups is None else expert // config.experts_per_group,
        kept=bool(reference.kept[token, expert]),
        logit=float(reference.logits[token, expert]),
        permitted_logit=_span(verdict.bounds.logits.permitted, token, expert),
        own_logit=None if own is None else float(own[token, expert]),
        score=float(reference.scores[token, expert]),
        bias=None if bias is None else float(bias[expert]),
        competing=_span(verdict.later.competing, token, expert),
        answered=bool((verdict.answer.expert_ids[token] == expert).any()),
        due=bool((reference.expert_ids[token] == expert).any()),
    )


def _slots(verdict: Verdict, token: int) -> tuple[SlotView, ...]:
    answer, permitted = verdict.answer, verdict.weight_bounds.permitted
    known = range(verdict.bounds.config.num_experts)
    return tuple(
        SlotView(
            expert=expert,
            weight=float(answer.weights[token, k]),
            permitted=_span(permitted, token, k) if expert in known else None,
            right=bool(verdict.weights[token, k]),
        )
        for k, expert in enumerate(answer.expert_ids[token].tolist())
    )


def _groups(verdict: Verdict, token: int) -> tuple[GroupView, ...]:
    scores, config = verdict.bounds.reference.group_scores, verdict.bounds.config
    if scores is None:
        return ()
    kept = verdict.bounds.reference.kept[token][:: config.experts_per_group]
    return tuple(
        GroupView(id=g, score=float(score), kept=bool(kept[g]))
        for g, score in enumerate(scores[token])
    )


def _input(verdict: Verdict, token: int) -> NormedView | None:
    config, inputs = verdict.bounds.config, verdict.bounds.inputs
    if config.input_norm is None:
        return None
    normed = normalize_input(config.input_norm, inputs)
    return NormedView(
        hidden=tuple(inputs.hidden[token, :SHOWN].tolist()),
        normed=tuple(normed[token, :SHOWN].tolist()),
        size=inputs.hidden_size,
    )


def _span(bounds: Interval, *index: int) -> Span:
    return float(bounds.lo[index]), float(bounds.hi[index])
