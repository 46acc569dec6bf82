"""What a replay shows: where its record and what the router would choose differ."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.replay import ReplayFacts
from moe_routing.reference.formats import Bools
from moe_routing.reference.replay import NO_ROW
from moe_routing.reference.routes import ABSENT
from moe_routing.reference.scores import sigmoid
from moe_routing.reference.weight_gradients import norm_of

TINY = 1e-12
"""A norm by which an eps of 1e-20, or a floor of 1e-12, shows."""


def unlike(facts: ReplayFacts) -> Bools:
    """Return the judged tokens whose experts are not those that the router would choose."""
    apart = (np.sort(facts.ids, axis=1) != np.sort(facts.chosen, axis=1)).any(axis=1)
    return np.asarray(apart & facts.bounds.judged & facts.present.any(axis=1))


def at_stake(facts: ReplayFacts) -> bool:
    """Return whether some token is replayed with other experts than would be chosen."""
    return bool(unlike(facts).any())


def several(facts: ReplayFacts) -> Bools:
    """Return the judged tokens with several present routes."""
    return np.asarray((facts.present.sum(axis=1) > 1) & facts.bounds.judged)


def some_absent(facts: ReplayFacts) -> Bools:
    """Return the tokens that have absent routes and others."""
    present = facts.present
    return np.asarray(present.any(axis=1) & ~present.all(axis=1))


def beside_first(facts: ReplayFacts) -> bool:
    """Return whether an absent route stands next to one of expert 0."""
    first = (facts.ids == 0).any(axis=1)
    return bool((some_absent(facts) & first & facts.bounds.judged).any())


def in_other_rows(facts: ReplayFacts) -> bool:
    """Return whether some token has the row of another, which holds other experts."""
    rows = facts.recorded.rows
    if rows is None or facts.recorded.layer is None:
        return False
    held = facts.recorded.expert_ids[:, facts.recorded.layer]
    own = np.arange(len(rows))
    moved = (rows >= 0) & (rows != own) & (own < len(held))
    return bool((held[rows[moved]] != held[own[moved]]).any())


def is_order(facts: ReplayFacts) -> bool:
    """Return whether every row of the record is some token's."""
    rows = facts.recorded.rows
    if rows is None or len(rows) != len(facts.recorded.expert_ids):
        return False
    return bool((rows >= 0).all())


def swaps(facts: ReplayFacts) -> bool:
    """Return whether the order of tokens is its own inverse."""
    rows = facts.recorded.rows
    return rows is not None and np.array_equal(np.argsort(rows), rows)


def layers_differ(facts: ReplayFacts) -> bool:
    """Return whether layers hold other experts than the one that is replayed."""
    ids, layer = facts.recorded.expert_ids, facts.recorded.layer
    return ids.shape[1] > 1 and bool((ids != ids[:, [layer or 0]]).any())


def lost(facts: ReplayFacts) -> bool:
    """Return whether a replayed expert is of a group that would not be kept."""
    done = facts.routing.reference
    at = np.take_along_axis(done.kept, np.maximum(facts.ids, 0), axis=1)
    return bool((~at & facts.present & facts.bounds.judged[:, None]).any())


def norm_is_tiny(facts: ReplayFacts) -> bool:
    """Return whether the scores at the replayed experts have a norm below ``TINY``."""
    rule = facts.config.renormalize
    if rule is None or "softmax_of" in facts.config.weights_from:
        return False
    values = facts.bounds.reference.scores
    if facts.config.weights_from == "sigmoid_of_selected":
        values = sigmoid(facts.bounds.reference.operated)
    held = np.take_along_axis(values, np.maximum(facts.ids, 0), axis=1)
    norms = norm_of(rule, np.where(facts.present, held, 0.0))
    told = facts.bounds.judged & facts.present.any(axis=1)
    return bool(((norms > 0.0) & (norms < TINY) & told).any())


def masked(facts: ReplayFacts) -> bool:
    """Return whether weights come from masked scores, and a replayed expert would be masked."""
    return facts.config.weights_from == "masked_scores" and lost(facts)


def weights_differ(facts: ReplayFacts) -> bool:
    """Return whether recorded weights are none that the router may give."""
    if facts.weights is None:
        return False
    inside = facts.permitted.weights.contains(facts.weights)
    return bool((~inside & facts.present & facts.bounds.judged[:, None]).any())


def weight_of_nobody(facts: ReplayFacts) -> bool:
    """Return whether an absent route has a recorded weight that is not 0."""
    record, layer = facts.recorded, facts.recorded.layer
    if record.weights is None or layer is None:
        return False
    absent = record.expert_ids[:, layer] == ABSENT
    return bool((record.weights[:, layer][absent] != 0.0).any())


def padded_before(facts: ReplayFacts) -> bool:
    """Return whether a token without a row comes before one that has one."""
    rows = facts.recorded.rows
    if rows is None or not (rows == NO_ROW).any() or not (rows >= 0).any():
        return False
    return bool(np.argmax(rows == NO_ROW) < np.flatnonzero(rows >= 0)[-1])


def would_choose_others(facts: ReplayFacts) -> bool:
    """Return whether no layer of the record holds what the router would choose."""
    record, chosen = facts.recorded, facts.chosen
    if not chosen.size or len(record.expert_ids) != len(chosen):
        return False
    mine = np.sort(chosen, axis=1)[:, None] != np.sort(record.expert_ids, axis=2)
    sure = facts.routing.only_reference
    return bool((mine.any(axis=2).all(axis=1) & sure).any())
