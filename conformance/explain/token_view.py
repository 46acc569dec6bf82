"""One token of a verdict as plain values: what every expert got, was allowed, and came to.

Made for those who draw or explain a failure: no arrays, nothing of the judge, so that a
view can be kept, sent to another process and compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge import Interval, Verdict

Span = tuple[float, float]
"""The lowest and the highest value that rounding permits."""

SHOWN = 16
"""The experts of a view, unless told otherwise: what a person compares at a glance."""


@dataclass(frozen=True, kw_only=True)
class ExpertView:
    """One expert: its value at each stage, what was permitted, and whether it was chosen.

    ``logit`` and ``score`` are the reference's, ``own_logit`` the answer's, if it gave any;
    ``bias`` is the selection bias, if there is one.
    ``competing`` is what it competes with: the scores with the selection bias, or, where
    the judge needs no softmax denominator, the numerators. ``kept`` tells whether the
    reference keeps its group, ``answered`` and ``due`` whether the answer and the
    reference chose it.
    """

    id: int
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
class TokenView:
    """One token: the experts that matter, best first, the answer's slots, the groups.

    ``cut`` is what an expert must be able to reach to be selected: the K-th highest of
    what the experts of the kept groups reach at least. None where nothing competes, and
    where the token's scores are undefined (``judged`` is False). ``hidden`` experts are
    left out, all of them worse than those shown, unchosen and not due.
    """

    token: int
    judged: bool
    cut: float | None
    experts: tuple[ExpertView, ...]
    hidden: int
    slots: tuple[SlotView, ...]
    due: tuple[int, ...]
    groups: tuple[GroupView, ...]


def token_view(verdict: Verdict, token: int, *, shown: int | None = SHOWN) -> TokenView:
    """Return the view of one token, with ``shown`` experts, or all of them where it is None."""
    answered = set(verdict.answer.expert_ids[token].tolist())
    due = set(verdict.bounds.reference.expert_ids[token].tolist())
    ids = _those_that_matter(verdict, token, answered | due, shown)
    return TokenView(
        token=token,
        judged=bool(verdict.judged[token]),
        cut=_cut(verdict, token),
        experts=tuple(_expert(verdict, token, e, e in answered, e in due) for e in ids),
        hidden=verdict.bounds.config.num_experts - len(ids),
        slots=_slots(verdict, token),
        due=tuple(verdict.bounds.reference.expert_ids[token].tolist()),
        groups=_groups(verdict, token),
    )


def _those_that_matter(
    verdict: Verdict, token: int, chosen: set[int], shown: int | None
) -> list[int]:
    """Return the chosen experts and the best of the others, best first."""
    competing, kept = verdict.later.competing, verdict.bounds.reference.kept[token]
    best = sorted(range(len(kept)), key=lambda e: (not kept[e], -competing.hi[token, e], e))
    if shown is None:
        return best
    others = [e for e in best if e not in chosen][: max(0, shown - len(chosen))]
    return [e for e in best if e in chosen or e in others]


def _cut(verdict: Verdict, token: int) -> float | None:
    bounds = verdict.bounds
    if not verdict.judged[token] or bounds.inputs.expert_table is not None:
        return None
    fill = bounds.config.groups.fill if bounds.config.groups else -np.inf
    reached = np.where(bounds.reference.kept[token], verdict.later.competing.lo[token], fill)
    return float(np.sort(reached)[-bounds.config.top_k])


def _expert(verdict: Verdict, token: int, expert: int, answered: bool, due: bool) -> ExpertView:
    config, reference, own = verdict.bounds.config, verdict.bounds.reference, verdict.answer.logits
    bias = verdict.bounds.inputs.selection_bias
    return ExpertView(
        id=expert,
        group=None if config.groups is None else expert // config.experts_per_group,
        kept=bool(reference.kept[token, expert]),
        logit=float(reference.logits[token, expert]),
        permitted_logit=_span(verdict.bounds.logits.permitted, token, expert),
        own_logit=None if own is None else float(own[token, expert]),
        score=float(reference.scores[token, expert]),
        bias=None if bias is None else float(bias[expert]),
        competing=_span(verdict.later.competing, token, expert),
        answered=answered,
        due=due,
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


def _span(bounds: Interval, *index: int) -> Span:
    return float(bounds.lo[index]), float(bounds.hi[index])
