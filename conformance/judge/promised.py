"""What only some backends promise of an answer (docs/spec/selection.md, "Promises")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.selection import certain_groups, chosen_mask
from moe_routing.conformance.judge.verdict import Verdict
from moe_routing.reference.formats import Bools, Floats

Pair = tuple[int, int, int]
"""A token, and two of its experts or of its slots."""


def higher_of_tied(verdict: Verdict) -> Pair | None:
    """Return the first token with a selected expert whose lower twin is not, and those two.

    Twins are experts of one group with the same exact logit and the same bias: no rounding tells
    them apart, so whatever one is worth in the selection, so is the other.
    """
    config, inputs = verdict.bounds.config, verdict.bounds.inputs
    chosen = chosen_mask(verdict.answer.expert_ids, config.num_experts)
    bias = inputs.selection_bias
    places = np.zeros(config.num_experts) if bias is None else bias.astype(np.float64)
    logits, known = _logits(verdict)
    groups = np.arange(config.num_experts) // config.experts_per_group
    shape = logits.shape
    order = np.lexsort(
        (logits, np.broadcast_to(places, shape), np.broadcast_to(groups, shape)), axis=1
    )

    def first_and_next(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        ordered = np.take_along_axis(np.broadcast_to(values, shape), order, axis=1)
        return ordered[:, :-1], ordered[:, 1:]

    twins = np.logical_and.reduce([np.equal(*first_and_next(v)) for v in (logits, places, groups)])
    (certain, too), (lower, higher) = first_and_next(known), first_and_next(chosen)
    wrong: Bools = twins & certain & too & higher & ~lower & verdict.judged[:, None]
    if not wrong.any():
        return None
    t, place = np.argwhere(wrong)[0]
    return int(t), int(order[t, place + 1]), int(order[t, place])


def _logits(verdict: Verdict) -> tuple[Floats, Bools]:
    """Return the logits ``[T, E]`` that were routed, and which of them are known to the bit."""
    own, bounds = verdict.answer.logits, verdict.bounds
    if verdict.routed and own is not None:
        return own, np.isfinite(own)
    return bounds.logits.reference, bounds.logits.exact


def ascending_slots(verdict: Verdict) -> Pair | None:
    """Return the first token with a slot that certainly ranks below the next, and those slots."""
    start = 0
    for part in verdict.parts():
        found = next(_ascending(part), None)
        if found is not None:
            return start + found[0], *found[1:]
        start += len(part.judged)
    return None


def _ascending(verdict: Verdict) -> Iterator[Pair]:
    later, ids, config = verdict.later, verdict.answer.expert_ids, verdict.bounds.config
    known = verdict.judged & verdict.distinct & verdict.in_range
    competing, inside = later.competing, np.ones((len(ids), config.num_experts), bool)
    if config.groups is not None:  # one that is excluded, and fills a slot, ranks by the fill
        kept, _ = certain_groups(competing, config.groups, later.group_format)
        inside = np.repeat(kept, config.experts_per_group, axis=1)
    at = np.clip(ids, 0, config.num_experts - 1)
    lo, hi, sure = (np.take_along_axis(a, at, axis=1) for a in (competing.lo, competing.hi, inside))
    wrong = (hi[:, :-1] < lo[:, 1:]) & sure[:, :-1] & sure[:, 1:] & known[:, None]
    yield from ((int(t), int(k), int(k) + 1) for t, k in np.argwhere(wrong))
