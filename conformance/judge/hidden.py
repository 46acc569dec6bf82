"""Members that a dense answer does not show: selected experts whose weight is 0.

Of the sets that complete what shows, one is looked for that is right: what is missing has to weigh
0, so experts that may weigh 0 come first, of these those of the groups that show, then the
reference's own, then the best.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.selection import chosen_mask
from moe_routing.conformance.judge.verdict import Answer, later_of
from moe_routing.conformance.judge.weights import weight_bounds
from moe_routing.reference.formats import Bools, Floats, Ids

HIDDEN = -1
"""What stands for the id of a member that does not show, until one is found."""


def revealed(bounds: Bounds, answer: Answer, *, routed: bool) -> Answer:
    """Return the answer with the ids of its members that do not show; of weight 0, all of them.

    ``routed`` as in ``judge``. An answer without such members is returned itself.
    """
    tokens = np.flatnonzero((answer.expert_ids == HIDDEN).any(axis=1))
    if not len(tokens):
        return answer
    ids = np.array(answer.expert_ids)
    with np.errstate(all="ignore"):
        for rows in bounds.blocks or [slice(None)]:
            which = np.arange(len(ids))[rows]
            block = bounds.block(rows) if bounds.blocks else bounds
            found = tokens[np.isin(tokens, which)]
            if len(found):
                later = later_of(block, answer.rows(rows), routed)
                ids[found] = _completed(block, later, ids[found], found - which[0])
    return replace(answer, expert_ids=ids)


def _completed(bounds: Bounds, later: SelectionBounds, ids: Ids, tokens: Ids) -> Ids:
    """Return ``ids [N, K]`` of some tokens without members that are missing."""
    part, experts = later.alone(tokens), bounds.config.num_experts
    shown = _shown(ids, experts)
    own = chosen_mask(bounds.reference.expert_ids[tokens], experts)
    within = _within(bounds, part, shown, own)
    made = _filled(ids, np.lexsort((-part.competing.lo, ~own, ~within, shown), axis=1))
    for n in np.flatnonzero(~_may_weigh_nothing(bounds, part, made, ids == HIDDEN)):
        missing = ids[n] == HIDDEN
        light = _light(bounds, later, made[n], missing, int(tokens[n]))
        if (light & ~shown[n]).sum() < missing.sum():
            break  # nothing completes it: the answer is wrong, whatever the others are
        keys = (-part.competing.lo[n], ~own[n], ~within[n], ~light, shown[n])
        made[n] = _filled(ids[[n]], np.lexsort(keys)[None])[0]
    return made


def _within(bounds: Bounds, part: SelectionBounds, shown: Bools, own: Bools) -> Bools:
    """Return the experts ``[N, E]`` of groups that a token keeps, as far as shows; mostly all.

    Groups may tie: where an expert shows of a group that the reference passes over, the kept ones
    are those that show, then the reference's, then the best.
    """
    groups = bounds.config.groups
    if groups is None or groups.from_each:
        return np.ones_like(shown)
    grid = (len(shown), groups.count, shown.shape[1] // groups.count)
    seen, theirs = shown.reshape(grid).any(axis=2), own.reshape(grid).any(axis=2)
    best = part.competing.lo.reshape(grid).max(axis=2)
    order = np.lexsort((-best, ~theirs, ~seen), axis=1)
    kept = np.zeros_like(seen)
    np.put_along_axis(kept, order[:, : groups.kept], True, axis=1)
    kept |= ~np.any(seen & ~theirs, axis=1, keepdims=True)
    return np.repeat(kept, grid[2], axis=1)


def _shown(ids: Ids, experts: int) -> Bools:
    """Return which experts ``[N, E]`` show."""
    shown = np.zeros((len(ids), experts), dtype=bool)
    n, k = np.nonzero(ids != HIDDEN)
    shown[n, ids[n, k]] = True
    return shown


def _filled(ids: Ids, order: Ids) -> Ids:
    """Return ids with the first of ``order`` in the place of what is missing."""
    missing = ids == HIDDEN
    place = np.maximum(np.cumsum(missing, axis=1) - 1, 0)
    return np.where(missing, np.take_along_axis(order, place, axis=1), ids)


def _may_weigh_nothing(bounds: Bounds, later: SelectionBounds, ids: Ids, missing: Bools) -> Bools:
    """Return the tokens ``[N]`` whose missing members may all weigh 0."""
    bound = weight_bounds(bounds, later, ids)
    nothing = bound.permitted.contains(np.zeros(ids.shape)) | ~bound.decided[:, None]
    return np.asarray((nothing | ~missing).all(axis=1))


def _light(bounds: Bounds, later: SelectionBounds, ids: Ids, missing: Bools, token: int) -> Bools:
    """Return the experts ``[E]`` that may weigh 0 in a place of one that is missing."""
    experts = bounds.config.num_experts
    slot = int(np.flatnonzero(missing)[-1])
    tried = np.tile(ids, (experts, 1))
    tried[:, slot] = np.arange(experts)
    part = later.alone(np.full(experts, token))
    here = np.zeros(tried.shape, dtype=bool)
    here[:, slot] = True
    return _may_weigh_nothing(bounds, part, tried, here)


def weights_of(dense: Floats, top_k: int) -> tuple[Floats, Ids]:
    """Return the weights and ids ``[T, K]`` that show in rows of at most K weights."""
    order = np.argsort(dense == 0.0, axis=1, kind="stable")[:, :top_k]
    weights = np.take_along_axis(dense, order, axis=1)
    return weights, np.where(weights == 0.0, HIDDEN, order)
