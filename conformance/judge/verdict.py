"""The verdict: every stage of one answer, compared with what rounding can explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from moe_routing.conformance.judge.answer import Answer as Answer
from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.points import chosen_by, same_set
from moe_routing.conformance.judge.rows import NONE
from moe_routing.conformance.judge.selection import (
    chosen_mask,
    distinct_in_range,
    may_select,
)
from moe_routing.conformance.judge.weights import WeightBounds, joined_bounds, weight_bounds
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.quick import every, some


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What the judge found, as arrays; a stage holds where its array is all True.

    ``judged [T]``: tokens judged for more than distinct ids in range. ``distinct``,
    ``in_range``, ``selection [T]``; ``logits [T, E]`` or None where the answer has none;
    ``weights [T, K]``, ``decided [T]`` as in ``WeightBounds``; ``apart [T, 2]``: the slots of
    whose weights no factor of the row explains both, ``NONE`` where there are none; ``routed``:
    whether the later stages were judged from the answer's own logits; ``made``: the bounds of
    those stages, where they were made of all tokens at once.
    """

    bounds: Bounds
    answer: Answer
    judged: Bools
    distinct: Bools
    in_range: Bools
    selection: Bools
    logits: Bools | None
    weights: Bools
    decided: Bools
    apart: Ids
    weight_bounds: WeightBounds
    routed: bool
    made: SelectionBounds | None = None

    @cached_property
    def later(self) -> SelectionBounds:
        """The bounds of the stages between logits and weights."""
        return self.made or later_of(self.bounds, self.answer, self.routed)

    def parts(self) -> Iterator[Verdict]:
        """Yield the verdicts on the blocks of a large call, made anew; of a small one, this."""
        if not self.bounds.blocks:
            yield self
            return
        yield from _of_blocks(self.bounds, self.answer, self.routed)

    def unlike(self) -> Iterator[Verdict]:
        """Yield verdicts that together are on every token, or on one that is answered alike."""
        yield from self.parts()

    @property
    def right(self) -> bool:
        """Whether nothing is wrong at any stage."""
        stages_ = (self.distinct, self.in_range, self.selection, self.logits, self.weights)
        return all(stage is None or bool(stage.all()) for stage in stages_)


def judge(
    bounds: Bounds, answer: Answer, *, logits: Literal["routed", "copy", "none"] = "none"
) -> Verdict:
    """Decide, stage by stage, whether rounding alone can explain ``answer``.

    ``logits`` is the backend's ``Capabilities.logits``: from ``routed`` logits the later
    stages are judged, as points; otherwise from the reference's interval. Non-finite
    own logits fall back to the interval. Source: ``docs/spec/judging.md``.
    """
    routed = logits == "routed"
    with np.errstate(all="ignore"):
        if bounds.blocks:
            parts = [replace(part, bounds=bounds) for part in _of_blocks(bounds, answer, routed)]
            return _joined(bounds, answer, parts)
        return _judge(bounds, answer, routed)


def of_block(bounds: Bounds, answer: Answer, rows: slice, *, routed: bool) -> Verdict:
    """Judge one of the blocks of rows of a large call."""
    with np.errstate(all="ignore"):
        return _judge(bounds.block(rows), answer.rows(rows), routed)


def _of_blocks(bounds: Bounds, answer: Answer, routed: bool) -> Iterator[Verdict]:
    """Judge the blocks of a large call; what is made of one is let go of before the next."""
    for rows in bounds.blocks:
        yield replace(of_block(bounds, answer, rows, routed=routed), made=None)


def _joined(bounds: Bounds, answer: Answer, parts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on all tokens, of those on blocks of them."""

    def joined(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return Verdict(
        bounds=bounds,
        answer=answer,
        judged=bounds.judged,
        **{name: joined(name) for name in _ARRAYS},
        logits=None if answer.logits is None else joined("logits"),
        weight_bounds=joined_bounds([part.weight_bounds for part in parts]),
        routed=parts[0].routed,
    )


_ARRAYS = ("distinct", "in_range", "selection", "weights", "decided", "apart")


def later_of(bounds: Bounds, answer: Answer, routed: bool) -> SelectionBounds:
    """Return the bounds of the later stages, from the logits that they are judged from."""
    if routed and answer.logits is not None:
        return bounds.from_logits(own_logits(bounds, answer.logits))
    return bounds.from_reference


def _judge(bounds: Bounds, answer: Answer, routed: bool) -> Verdict:
    config, judged = bounds.config, bounds.judged
    later = later_of(bounds, answer, routed)
    distinct, in_range = distinct_in_range(answer.expert_ids, config.num_experts)
    if bounds.inputs.expert_table is not None:
        distinct = np.ones(len(distinct), dtype=bool)  # a table may repeat an expert
    valid, ids = np.ones(answer.expert_ids.shape, dtype=bool), answer.expert_ids
    if not every(in_range):
        valid = (ids >= 0) & (ids < config.num_experts)
        ids = np.clip(ids, 0, config.num_experts - 1)
    selection = ~(distinct & in_range)
    if bounds.inputs.expert_table is None:
        _select(selection, bounds, later, ids, answer.logits if routed else None)
    else:  # a table needs no scores, so a token without any still has its row
        selection |= same_set(ids, bounds.reference.expert_ids)
    bound = weight_bounds(bounds, later, ids)
    bound.permitted.checked(judged)
    fine = bound.permitted.contains(answer.weights)
    fine |= ~bound.decided[:, None] & np.isnan(answer.weights)
    weights = fine | ~judged[:, None] | ~valid
    apart = _apart(bound, answer.weights, judged & weights.all(axis=1) & valid.all(axis=1))
    if bound.row is not None and some(apart != NONE):
        rows = apart[:, 0] != NONE
        weights[rows] &= ~chosen_mask(apart[rows], config.top_k)
    logit_verdict = None
    if answer.logits is not None:
        logit_verdict = bounds.logits.contain(answer.logits) | ~judged[:, None]
    return Verdict(
        bounds=bounds,
        answer=answer,
        judged=judged,
        distinct=distinct,
        in_range=in_range,
        selection=selection,
        logits=logit_verdict,
        weights=weights,
        decided=bound.decided,
        apart=apart,
        weight_bounds=bound,
        routed=routed and answer.logits is not None,
        made=later,
    )


def _apart(bound: WeightBounds, weights: Floats, judged: Bools) -> Ids:
    """Return the slots ``[T, 2]`` that no factor explains, of rows where each slot is right."""
    if bound.row is None:
        return np.full((len(weights), 2), NONE)
    return bound.row.apart(weights, judged & bound.decided)


def own_logits(bounds: Bounds, own: Floats) -> Interval:
    """Return the backend's finite logits as points, and the interval for the others."""
    finite = np.isfinite(own)
    if every(finite):
        return Interval.point(own)
    return Interval.point(np.where(finite, own, 0.0)).where(finite, bounds.logits.permitted)


def _select(
    selection: Bools, bounds: Bounds, later: SelectionBounds, ids: Ids, own: Floats | None
) -> None:
    """Add the tokens whose ``ids`` are right: by exact scores, else by all that rounding may make.

    What is True in ``selection`` already needs no scores.
    """
    selection |= ~bounds.judged
    if own is None:
        selection |= same_set(ids, bounds.reference.expert_ids)
    else:
        selection |= chosen_by(bounds.config, later, exact_logits(bounds, own), ids)
    others = np.flatnonzero(~selection)
    if len(others):
        part, chosen = later.alone(others), chosen_mask(ids[others], bounds.config.num_experts)
        groups, form = bounds.config.groups, later.group_format
        selection[others] = may_select(part.competing, chosen, groups, form)


def exact_logits(bounds: Bounds, own: Floats) -> Floats:
    """Return a point of ``own_logits``: the reference's logits where the own are not finite."""
    finite = np.isfinite(own)
    return own if every(finite) else np.where(finite, own, bounds.logits.reference)
