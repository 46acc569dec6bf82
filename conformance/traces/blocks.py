"""One block of tokens of one layer, judged: what explains the routes of each of them.

First exact arithmetic on the recorded logits; then, for what that leaves, the judge's bounds, from
what the recorded logits may have been before they were recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from moe_routing.conformance.judge.intervals import ROUNDING as ROUNDED
from moe_routing.conformance.judge.intervals import Interval, underflow
from moe_routing.conformance.judge.selection import chosen_mask, distinct_in_range
from moe_routing.conformance.judge.weights import weight_bounds
from moe_routing.conformance.traces.dtypes import AnyArray
from moe_routing.conformance.traces.exact import exactly_chosen, nearly_between, nearly_exact
from moe_routing.conformance.traces.precision import rows_held
from moe_routing.conformance.traces.router import Router, ids_in_range, within_range
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.routes import ABSENT

RIGHT, ROUNDING, WRONG, UNDEFINED, ABSENT_, UNJUDGED = range(6)
"""What a token is: ``WRONG`` is what nothing explains; of one that is ``UNJUDGED`` only the ids
were recorded, and they are distinct and in range."""

STATES = ("right", "rounding", "wrong", "undefined", "absent", "unjudged")
"""The names of these, in reports."""

STAGES = ("", "ids", "selection", "weights", "logits")
"""The stages that a token may be wrong at."""

IDS, SELECTION, WEIGHTS, LOGITS = range(1, 5)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What the routes of some tokens are judged from.

    ``logits [n, E]`` are the recorded ones, or the exact ones of recorded hidden states;
    ``permitted`` bounds the latter, None of recorded ones, which the record's rounding bounds.
    """

    logits: AnyArray
    permitted: Interval | None = None

    def rows(self, rows: Ids) -> Evidence:
        """Take some rows."""
        permitted = None if self.permitted is None else self.permitted.rows(rows)
        return Evidence(logits=self.logits[rows], permitted=permitted)

    def around(self, router: Router, rows: Ids, at: Ids | None = None) -> Interval:
        """Return what the routed logits of some rows may have been, all, or those ``at [n, K]``."""
        if self.permitted is not None:
            found = self.permitted.rows(rows)
            return found if at is None else found.at(at)
        return around_recorded(router, self.logits[rows], at)


@dataclass(frozen=True, kw_only=True, eq=False)
class Marks:
    """What was found of each token of a block: ``state``, ``stage``, by how much it ``missed``."""

    state: Ids
    stage: Ids
    missed: Floats

    @classmethod
    def of(cls, count: int) -> Marks:
        """Return the marks of tokens that are right."""
        zeros = np.zeros(count, dtype=np.int64)
        return cls(state=zeros, stage=zeros.copy(), missed=np.full(count, np.inf))

    def refuse(self, rows: Ids | Bools, stage: int) -> None:
        """Mark tokens as wrong at a stage."""
        self.state[rows], self.stage[rows] = WRONG, stage


def around_recorded(router: Router, logits: AnyArray, at: Ids | None = None) -> Interval:
    """Bound the routed logits whose record is ``logits [n, E]``: one rounding each.

    All are bounded, or those ``at [n, K]``.

    A row that the trace's narrower format does not hold was recorded in the wider dtype. Where
    the router may store its logits in the dtype of the hidden states, it may have done so after.
    """
    assert router.logits is not None, "logits were recorded"
    unit = np.where(rows_held(logits, router.logits), router.logits.unit_roundoff, 0.0)
    exact = (logits if at is None else np.take_along_axis(logits, at, axis=1)).astype(np.float64)
    absolute = underflow(router.logits)
    for form in (router.own_logits, router.stored_logits):
        unit = np.maximum(unit, form.unit_roundoff)
        absolute = max(absolute, underflow(form))
    size = np.where(np.isfinite(exact), np.abs(exact), 0.0) * unit[:, None] + absolute
    return Interval(exact - size, exact + size)


def judge_block(
    router: Router, ids: Ids, evidence: Evidence | None, weights: Floats | None
) -> Marks:
    """Judge the routes of n tokens: ``ids [n, K]``, ``weights [n, K]`` or None."""
    marks = Marks.of(len(ids))
    absent = (ids == ABSENT).any(axis=1)
    distinct, in_range = distinct_in_range(ids, router.config.num_experts)
    fine = in_range & (distinct | router.forced)
    marks.refuse(~fine & ~absent, IDS)
    marks.state[absent] = ABSENT_
    live = fine & ~absent
    if evidence is None or not (router.chooses or (router.weighs and weights is not None)):
        marks.state[live] = UNJUDGED
        return marks
    _judge_live(router, marks, live, ids, weights, evidence)
    wrong = np.flatnonzero((marks.state == WRONG) & live)
    if router.otherwise is not None and len(wrong):
        some = None if weights is None else weights[wrong]
        again = judge_block(router.otherwise, ids[wrong], evidence.rows(wrong), some)
        marks.state[wrong[again.state != WRONG]] = ROUNDING
        marks.stage[wrong[again.state != WRONG]] = 0
    return marks


def _judge_live(
    router: Router,
    marks: Marks,
    live: Bools,
    ids: Ids,
    weights: Floats | None,
    evidence: Evidence,
) -> None:
    """Judge the tokens that are ``live``: whose ids are distinct and in range."""
    places = ids if live.all() else ids_in_range(ids, router.config.num_experts)
    chosen = weighed = np.ones(len(ids), dtype=bool)
    with np.errstate(all="ignore"):
        if router.chooses:
            chosen = exactly_chosen(router, evidence.logits, places)
        if weights is not None and router.weighs:
            weighed = nearly_exact(router, evidence.logits, places, weights)
        _judge_rest(router, marks, live, (chosen, weighed), (places, weights), evidence)


def _judge_rest(
    router: Router,
    marks: Marks,
    live: Bools,
    exact: tuple[Bools, Bools],
    routes: tuple[Ids, Floats | None],
    evidence: Evidence,
) -> None:
    """Judge the tokens whose choice, or whose weights, exact arithmetic does not explain."""
    (chosen, weighed), (ids, weights) = exact, routes
    rest = np.flatnonzero(live & ~(chosen & weighed))
    if not len(rest):
        return
    defined = _defined(router, evidence.logits, rest)
    marks.state[rest] = np.where(defined, ROUNDING, UNDEFINED)
    rest = rest[defined]
    if weights is not None:
        _weigh(router, marks, rest[~weighed[rest]], ids, weights, evidence)
    _choose(router, marks, rest[~chosen[rest]], ids, evidence)


def _defined(router: Router, logits: AnyArray, rows: Ids) -> Bools:
    if within_range(router, logits):
        return np.ones(len(rows), dtype=bool)
    return router.defined(logits[rows].astype(np.float64))


def _weigh(
    router: Router, marks: Marks, rows: Ids, ids: Ids, weights: Floats, evidence: Evidence
) -> None:
    """Refuse those of some tokens whose weights no rounding explains."""
    if not len(rows):
        return
    around = partial(evidence.around, router, rows)
    rows = rows[~nearly_between(router, around, ids[rows], weights[rows])]
    if not len(rows):
        return
    permitted, fine = _weighed(router, ids[rows], evidence.around(router, rows), weights[rows])
    wrong = ~fine.all(axis=1)
    marks.refuse(rows[wrong], WEIGHTS)
    marks.missed[rows[wrong]] = outside(permitted, weights[rows])[wrong]


def _choose(router: Router, marks: Marks, rows: Ids, ids: Ids, evidence: Evidence) -> None:
    """Refuse those of some tokens whose experts no rounding explains."""
    if not len(rows):
        return
    later = router.later(evidence.around(router, rows))
    chosen = chosen_mask(ids[rows], router.config.num_experts)
    wrong = ~router.may_choose(later, chosen)
    marks.refuse(rows[wrong], SELECTION)
    if wrong.any():
        marks.missed[rows[wrong]] = gap_of(
            later.competing.rows(np.flatnonzero(wrong)), chosen[wrong]
        )


def _weighed(router: Router, ids: Ids, logits: Interval, weights: Floats) -> tuple[Interval, Bools]:
    """Return the permitted weights of some tokens, and which of ``weights [n, K]`` are."""
    bounds = router.bounds(np.ones(len(ids), dtype=bool))
    bound = weight_bounds(bounds, bounds.from_logits(logits), ids)
    permitted, (unit, absolute) = bound.permitted, router.record_of_weights
    if unit or absolute:
        permitted = permitted.widen(ROUNDED, unit, absolute)
    fine = permitted.contains(weights)
    fine |= ~bound.decided[:, None] & np.isnan(weights)
    if bound.row is not None and not (unit or absolute):
        apart = bound.row.apart(weights, bound.decided & fine.all(axis=1))
        fine &= (apart[:, :1] < 0) | ~chosen_mask(apart, ids.shape[1])
    return permitted, fine


def refuse_logits(
    router: Router, marks: Marks, recorded: Evidence | None, hidden: Evidence
) -> None:
    """Refuse tokens whose recorded logits are not those of their hidden states."""
    assert recorded is not None, "logits were recorded"
    assert hidden.permitted is not None, "they are held against bounds"
    held = around_recorded(router, recorded.logits)
    apart = (held.hi < hidden.permitted.lo) | (held.lo > hidden.permitted.hi)
    known = (marks.state == RIGHT) | (marks.state == ROUNDING)
    marks.refuse(apart.any(axis=1) & known, LOGITS)


def permitted_weights(router: Router, ids: Ids, logits: Interval, weights: Floats) -> Interval:
    """Return the permitted weights ``[n, K]`` of tokens at ``ids``."""
    return _weighed(router, ids, logits, weights)[0]


def outside(permitted: Interval, weights: Floats) -> Floats:
    """Return how far the worst weight of each token lies outside what is permitted, relative."""
    beyond = np.maximum(permitted.lo - weights, weights - permitted.hi)
    size = np.maximum(np.abs(permitted.hi), np.abs(permitted.lo))
    share: Floats = (np.maximum(beyond, 0.0) / size).max(axis=1)
    return np.where(np.isnan(share), np.inf, share)


def gap_of(competing: Interval, chosen: Bools) -> Floats:
    """Return how far the best that was left out lies above the least chosen, relative."""
    cut = np.where(chosen, competing.hi, np.inf).min(axis=1)
    best = np.where(chosen, -np.inf, competing.lo).max(axis=1)
    size = np.maximum(np.abs(cut), np.abs(best))
    gap: Floats = np.maximum(best - cut, 0.0) / size
    return np.where(np.isnan(gap), np.inf, gap)
