"""Members that a dense answer does not show: selected experts whose weight is 0.

Of the sets that complete what shows, one is looked for that is right: with the reference's own,
then the best, and where these cannot weigh 0, or would not be selected, among those that may.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, islice

import numpy as np

from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.completions import Completion
from moe_routing.conformance.judge.selection import chosen_mask, may_select
from moe_routing.conformance.judge.verdict import Answer, later_of
from moe_routing.conformance.judge.weights import weight_bounds
from moe_routing.reference.formats import Bools, Floats, Ids

HIDDEN = -1
"""What stands for the id of a member that does not show, until one is found."""

_ROUNDS = 3
"""How often experts that may weigh 0 are looked for, each time beside those found before."""

_TRIED = 2**16
"""Numbers of the rows that are tried, one a set of members, where what shows contradicts one."""


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
                given = ids[found], answer.weights[found]
                ids[found] = _completed(block, later, *given, found - which[0])
    return replace(answer, expert_ids=ids)


def _completed(
    bounds: Bounds, later: SelectionBounds, ids: Ids, weights: Floats, tokens: Ids
) -> Ids:
    """Return ``ids [N, K]`` of some tokens without members that are missing."""
    part, experts = later.alone(tokens), bounds.config.num_experts
    shown = _shown(ids, experts)
    own = chosen_mask(bounds.reference.expert_ids[tokens], experts)
    made = _filled(ids, np.lexsort((-part.competing.lo, ~own, shown), axis=1))
    missing, given = ids == HIDDEN, bounds.judged[tokens]
    right = _may_weigh_nothing(bounds, part, made, missing)
    right &= may_select(
        part.competing, chosen_mask(made, experts), bounds.config.groups, part.group_format
    )
    trying, fits = True, right & _explain(bounds, part, made, weights)
    for n in np.flatnonzero(given & ~fits):
        token = later.alone(tokens[[n]])
        found = (
            made[n] if right[n] else _found(bounds, token, made[n], missing[n], shown[n], own[n])
        )
        if trying and not (
            found is not None and _explain(bounds, token, found[None], weights[[n]]).all()
        ):
            other = _tried(bounds, token, made[n], weights[n], missing[n], own[n])
            trying, found = other is not None, found if other is None else other
        if found is None:
            break  # nothing completes it: the answer is wrong, whatever the others are
        made[n] = found
    return made


def _tried(
    bounds: Bounds, later: SelectionBounds, ids: Ids, weights: Floats, missing: Bools, own: Bools
) -> Ids | None:
    """Return the ids ``[K]`` of one token whose norm explains the weights that show, if tried.

    Experts that tie may have other scores: saturated ones, or those of a group that is left out.
    """
    light, lowest = _light(bounds, later, ids, missing), later.competing.lo[0]
    order = np.lexsort((-lowest, ~own, ~light))
    free = order[~np.isin(order, ids[~missing])]
    most = max(1, _TRIED // bounds.config.num_experts)
    sets = np.array([*islice(combinations(free, int(missing.sum())), most)], dtype=np.int64)
    if not len(sets):
        return None
    tried = np.tile(ids, (len(sets), 1))
    tried[:, missing] = sets
    part, config = later.alone(np.zeros(len(sets), dtype=np.int64)), bounds.config
    right = may_select(
        part.competing, chosen_mask(tried, config.num_experts), config.groups, part.group_format
    )
    right &= _explain(bounds, part, tried, np.tile(weights, (len(sets), 1)))
    return tried[right.argmax()] if right.any() else None


def _explain(bounds: Bounds, later: SelectionBounds, ids: Ids, weights: Floats) -> Bools:
    """Return the tokens ``[N]`` all of whose weights these ids explain."""
    bound = weight_bounds(bounds, later, ids)
    return np.asarray((bound.permitted.contains(weights) | ~bound.decided[:, None]).all(axis=1))


def _found(
    bounds: Bounds, later: SelectionBounds, ids: Ids, missing: Bools, shown: Bools, own: Bools
) -> Ids | None:
    """Return the ids ``[K]`` of one token whose missing members may weigh 0, if there are any.

    Which may is first seen beside ``ids``, then beside what that leads to: a norm holds all.
    """
    for _ in range(_ROUNDS):
        light = _light(bounds, later, ids, missing)
        members = Completion(later=later, shown=shown, light=light, own=own).found(missing.sum())
        if members is None:
            return None
        ids = ids.copy()
        ids[missing] = members
        if _may_weigh_nothing(bounds, later, ids[None], missing[None]).all():
            return ids
    return None


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


def _light(bounds: Bounds, later: SelectionBounds, ids: Ids, missing: Bools) -> Bools:
    """Return the experts ``[E]`` that may weigh 0 in a place of one that is missing of a token."""
    experts = bounds.config.num_experts
    slot = int(np.flatnonzero(missing)[-1])
    tried = np.tile(ids, (experts, 1))
    tried[:, slot] = np.arange(experts)
    part = later.alone(np.zeros(experts, dtype=np.int64))
    here = np.zeros(tried.shape, dtype=bool)
    here[:, slot] = True
    return _may_weigh_nothing(bounds, part, tried, here)


def weights_of(dense: Floats, top_k: int) -> tuple[Floats, Ids]:
    """Return the weights and ids ``[T, K]`` that show in rows of at most K weights."""
    order = np.argsort(dense == 0.0, axis=1, kind="stable")[:, :top_k]
    weights = np.take_along_axis(dense, order, axis=1)
    return weights, np.where(weights == 0.0, HIDDEN, order)
