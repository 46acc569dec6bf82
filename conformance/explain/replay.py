"""Why a replay is wrong, in words: the record, the token, its slots, and whose routes came back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moe_routing.conformance.explain import story
from moe_routing.conformance.explain.failure import Failure, at
from moe_routing.conformance.explain.numbers import show, span
from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.replay import ReplayFacts, ReplayVerdict
from moe_routing.conformance.judge.weights import weight_bounds
from moe_routing.reference.formats import Floats, Ids
from moe_routing.reference.routes import ABSENT

_SHOWN = 16
"""The slots of a token that are listed, at the most."""


def replay_failure(verdict: ReplayVerdict) -> Failure | None:
    """Return the failure of the first wrong slot, ids before weights, or None."""
    for stage, wrong in (("replay", verdict.wrong_ids), ("weights", verdict.wrong_weights)):
        if wrong.any():
            t, k = (int(i) for i in np.argwhere(wrong)[0])
            words = _of_id(verdict, t, k) if stage == "replay" else _of_weight(verdict, t, k)
            lines = tuple(_story(verdict, t, stage))
            return Failure(stage=stage, token=t, summary=words, details=lines)
    return None


def record_words(facts: ReplayFacts) -> str:
    """Return the sizes of the record, and what of it is replayed."""
    record = facts.recorded
    tokens, layers, slots = record.expert_ids.shape
    layer = "nothing of this layer" if record.layer is None else f"layer {record.layer}"
    also = ", with weights" if record.weights is not None else ""
    rows = ", with rows" if record.rows is not None else ""
    return f"{tokens} tokens, {layers} layers, {slots} slots: {layer}{rows}{also}"


def call_lines(facts: ReplayFacts) -> tuple[str, str]:
    """Return the lines on a call and its record."""
    return (story.call_line(facts.config, facts.inputs), f"record    {record_words(facts)}")


def _of_id(verdict: ReplayVerdict, t: int, k: int) -> str:
    due, answered = verdict.facts.ids[t, k], verdict.answer.expert_ids[t, k]
    words = f"{at('expert_ids', t, k)}={answered}, but {due} was recorded"
    return words + (" (absent)" if due == ABSENT else "")


def _of_weight(verdict: ReplayVerdict, t: int, k: int) -> str:
    facts, weight = verdict.facts, float(verdict.answer.weights[t, k])
    name = f"{at('weights', t, k)}={show(weight)}"
    if not facts.present[t, k]:
        return f"{name}, but should be 0: the route is absent"
    expert = f"(expert {facts.ids[t, k]})"
    if facts.weights is not None:
        return f"{name}, but {show(facts.weights[t, k])} was recorded {expert}"
    return f"{name}, but should be in {span(_ends(verdict, t, k))} {expert}"


def _ends(verdict: ReplayVerdict, t: int, k: int) -> tuple[float, float]:
    bounds = verdict.permitted.weights
    return float(bounds.lo[t, k]), float(bounds.hi[t, k])


def _story(verdict: ReplayVerdict, t: int, stage: str) -> Iterator[str]:
    facts = verdict.facts
    yield from call_lines(facts)
    yield f"token     {t} has {_row(facts, t)}"
    if found := looks_as_if(verdict, t, stage):
        yield f"looks     {found}"
    yield f"slots     {'slot':>4} {'recorded':>8} {'answered':>8} {'weight':>15}   permitted weight"
    for k in range(min(facts.ids.shape[1], _SHOWN)):
        ids = f"{facts.ids[t, k]:>8} {verdict.answer.expert_ids[t, k]:>8}"
        weight = show(verdict.answer.weights[t, k])
        yield f"{'':10}{k:>4} {ids} {weight:>15}   {_permitted(verdict, t, k)}"


def _row(facts: ReplayFacts, t: int) -> str:
    rows = facts.recorded.rows
    row = t if rows is None else int(rows[t])
    return "no row in the record: it is padding" if row < 0 else f"row {row} of the record"


def _permitted(verdict: ReplayVerdict, t: int, k: int) -> str:
    facts = verdict.facts
    if not facts.present[t, k]:
        return "0 (absent)"
    if facts.weights is not None:
        return f"{show(facts.weights[t, k])} (recorded)"
    judged = facts.bounds.judged[t] and verdict.permitted.decided[t, k]
    return span(_ends(verdict, t, k)) if judged else "any: its score is undefined"


def looks_as_if(verdict: ReplayVerdict, t: int, stage: str) -> str:
    """Return whose routes, or what weights, a token got, in words, or nothing."""
    facts, answered = verdict.facts, verdict.answer.expert_ids[t]
    if stage == "weights":
        return _weights_look(verdict, t)
    for words, ids in _others(facts, t):
        if ids.shape == answered.shape and np.array_equal(ids, answered):
            return words
    return ""


def _others(facts: ReplayFacts, t: int) -> Iterator[tuple[str, Ids]]:
    """Yield the ids that a token gets by one mistake, with the mistake in words."""
    due, record = facts.ids[t], facts.recorded
    yield "as if the ids were sorted", np.sort(due)
    yield "as if an absent route went to expert 0", np.maximum(due, 0)
    yield "as if ids were kept in 8 bits", due & 0xFF
    yield "as if ids were kept in 16 bits", due.astype(np.int16).astype(np.int64)
    yield "as if nothing were replayed: the router chose by itself", facts.chosen[t]
    row = t if record.rows is None else int(record.rows[t])
    for layer in range(record.num_layers if row >= 0 else 0):
        if layer != record.layer:
            yield f"as if layer {layer} were replayed", record.expert_ids[row, layer]
    for other in range(min(len(record.expert_ids), 64)):
        if other != row and record.layer is not None:
            words = f"as if it had row {other} of the record"
            yield words, record.expert_ids[other, record.layer]


def _weights_look(verdict: ReplayVerdict, t: int) -> str:
    facts, weights = verdict.facts, verdict.answer.weights[t]
    slots = facts.present[t]
    if facts.weights is not None:
        ours = _within(facts.permitted.weights.rows(slice(t, t + 1)), weights)
        return "as if the recorded weights were ignored: these are the router's own" * ours
    if not slots.all() and facts.config.renormalize is not None and facts.config.scale > 0.0:
        total = weights[slots].sum()
        return f"as if absent routes were in the norm: the others sum to {show(total)}"
    if slots.all() and _within(_of_the_best(facts, t), weights):
        return "as if the weights of the best experts went to the recorded ones"
    return ""


def _of_the_best(facts: ReplayFacts, t: int) -> Interval:
    """Return the permitted weights ``[1, K]`` of the experts that would have been chosen."""
    one = slice(t, t + 1)
    later = facts.bounds.from_reference.rows(one)
    with np.errstate(all="ignore"):
        return weight_bounds(facts.bounds, later, facts.chosen[one]).permitted


def _within(bounds: Interval, weights: Floats) -> bool:
    """Return whether weights, in any order, lie within bounds ``[1, K]``."""
    low, high, held = np.sort(bounds.lo[0]), np.sort(bounds.hi[0]), np.sort(weights)
    return bool(((low <= held) & (held <= high)).all())
