"""Do two traces route alike, token by token, and what explains a token that they do not?"""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.selection import chosen_mask, distinct_in_range
from moe_routing.conformance.traces.block_data import BlockData
from moe_routing.conformance.traces.blocks import WRONG, gap_of, judge_block
from moe_routing.conformance.traces.exact import exactly_chosen
from moe_routing.conformance.traces.places import same_sets
from moe_routing.conformance.traces.router import Router
from moe_routing.conformance.traces.stories import story_of_difference
from moe_routing.conformance.traces.tally import Tally
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.routes import ABSENT

CAUSES = ("ties", "rounding", "wrong", "forced", "apart", "unexplained", "unknown")
"""What explains tokens that are routed differently, or fails to:

``ties`` logits that are equal, ``rounding`` logits that the record's rounding makes equal,
``wrong`` that the routes of one trace are, ``forced`` that they were to be replayed and were not,
``apart`` that each routes by its own logits, which differ by more than rounding,
``unexplained`` nothing: one trace's logits do not permit the other's choice,
``unknown`` that neither has logits."""


def agree(tally: Tally, one: BlockData, other: BlockData, tokens: int) -> None:
    """Count how the tokens of a block of A, ``one``, and of B agree.

    B's start may be another, where its record is shifted; they are as long.
    """
    ours, theirs, layer = one.choice, other.choice, other.number
    if ours is None or theirs is None:
        tally.note(layer, "unpaired", other.stop - other.start)
        return
    absent = (ours == ABSENT).any(axis=1), (theirs == ABSENT).any(axis=1)
    same = same_sets(ours, theirs)
    missing = (absent[0] | absent[1]) & ~same
    tally.note(layer, "alike", int(same.sum()))
    tally.note(layer, "absent in one", int(missing.sum()))
    rows = np.flatnonzero(~same & ~missing)
    if not len(rows):
        return
    causes = _causes(one, other, ours[rows], theirs[rows], rows)
    missed = np.full(len(same), np.inf)
    missed[rows] = _missed(one, other, ours[rows], theirs[rows], rows)
    for number, cause in enumerate(CAUSES):
        where = np.zeros(len(same), dtype=bool)
        where[rows[causes == number]] = True
        tally.show(
            layer,
            cause,
            where,
            start=other.start,
            tokens=tokens,
            missed=missed,
            story=lambda row: story_of_difference(one, other, ours[row], theirs[row], row, row),
        )


def _causes(one: BlockData, other: BlockData, ours: Ids, theirs: Ids, rows: Ids) -> Ids:
    """Return the place in ``CAUSES`` of each of the tokens ``rows``."""
    causes = np.full(len(rows), CAUSES.index("unknown"))
    judged = [each for each in (one, other) if each.evidence is not None and each.router.selects]
    if one.router.forced or other.router.forced:
        causes[:] = CAUSES.index("forced")
        return causes
    if judged:
        causes[:] = CAUSES.index("apart" if len(judged) == 2 else "unexplained")
    wrong = _wrong(one, ours, rows) | _wrong(other, theirs, rows)
    for name, explains in (("rounding", _near), ("ties", _tied)):
        for data in judged:
            both = explains(data, ours, rows) & explains(data, theirs, rows)
            causes[both] = CAUSES.index(name)
    causes[wrong] = CAUSES.index("wrong")
    return causes


def _missed(one: BlockData, other: BlockData, ours: Ids, theirs: Ids, rows: Ids) -> Floats:
    """Return by how much, relative, the logits of one trace keep it from the other's choice."""
    least = np.full(len(rows), np.inf)
    for data, ids in ((one, theirs), (other, ours)):
        if data.evidence is not None and data.router.selects:
            chosen = chosen_mask(ids, data.router.config.num_experts)
            with np.errstate(all="ignore"):
                later = data.router.later(data.evidence.around(data.router, rows))
                least = np.minimum(least, gap_of(later.competing, chosen))
    return least


def _wrong(data: BlockData, ids: Ids, rows: Ids) -> Bools:
    """Return which tokens are routed wrongly by the trace's own logits."""
    if data.ids is None:
        return np.zeros(len(rows), dtype=bool)
    evidence = data.evidence.rows(rows) if data.evidence is not None else None
    weights = None  # a weight that is wrong does not make routes differ
    wrong: Bools = judge_block(data.router, ids, evidence, weights).state == WRONG
    return wrong


def _near(data: BlockData, ids: Ids, rows: Ids) -> Bools:
    """Return whether the logits of a trace permit ``ids``, as far as its record rounds."""
    distinct, in_range = distinct_in_range(ids, data.router.config.num_experts)
    assert data.evidence is not None, "judged from logits"
    chosen = chosen_mask(ids, data.router.config.num_experts)
    fine = np.zeros(len(rows), dtype=bool)
    router: Router | None = data.router
    while router is not None:
        with np.errstate(all="ignore"):
            later = router.later(data.evidence.around(router, rows))
            fine |= router.may_choose(later, chosen)
        router = router.otherwise
    return fine & distinct & in_range


def _tied(data: BlockData, ids: Ids, rows: Ids) -> Bools:
    """Return whether the exact logits of a trace choose ``ids``."""
    distinct, in_range = distinct_in_range(ids, data.router.config.num_experts)
    assert data.evidence is not None, "judged from logits"
    places = np.clip(ids, 0, data.router.config.num_experts - 1)
    with np.errstate(all="ignore"):
        chosen = exactly_chosen(data.router, data.evidence.logits[rows], places)
    return chosen & distinct & in_range
