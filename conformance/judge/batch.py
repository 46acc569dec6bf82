"""Batched judging: many answers to one call.

The judge treats each token apart from all others. So answers can be concatenated into one
answer to a call of as many times the tokens, and its verdict split again: a small call costs
what its array operations cost to start, however many rows they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.verdict import Answer, Verdict, judge

_LARGE = 2**15
"""The size of a ``[T, E]`` array from which its rows, and not its start, are what it costs."""


def judge_all(
    bounds: Bounds, answers: Sequence[Answer], *, logits: Literal["routed", "copy", "none"] = "none"
) -> list[Verdict]:
    """Return the verdict of ``judge`` on each of ``answers``: all with logits, or all without.

    Errors: ``JudgeError`` where ``judge`` has one for any of them.
    """
    most = max(1, _LARGE // max(1, bounds.reference.logits.size))
    parts = (answers[i : i + most] for i in range(0, len(answers), most))
    return [verdict for part in parts for verdict in _judged(bounds, part, logits)]


def _judged(
    bounds: Bounds, answers: Sequence[Answer], logits: Literal["routed", "copy", "none"]
) -> list[Verdict]:
    if len(answers) == 1:
        return [judge(bounds, answers[0], logits=logits)]
    tokens = len(bounds.judged)
    joined = _joined(answers)
    repeated = bounds.repeated(
        np.tile(np.arange(tokens), len(answers)),
        logits=joined.logits is not None,
        later=joined.logits is None or logits != "routed",
    )
    whole = judge(repeated, joined, logits=logits)
    return [
        _part(whole, bounds, answer, slice(i * tokens, (i + 1) * tokens))
        for i, answer in enumerate(answers)
    ]


def _joined(answers: Sequence[Answer]) -> Answer:
    """Return the answers as one, their tokens concatenated."""
    logits = [answer.logits for answer in answers if answer.logits is not None]
    return Answer(
        weights=np.concatenate([answer.weights for answer in answers]),
        expert_ids=np.concatenate([answer.expert_ids for answer in answers]),
        logits=np.concatenate(logits) if logits else None,
    )


def _part(whole: Verdict, bounds: Bounds, answer: Answer, rows: slice) -> Verdict:
    """Return the part of ``whole`` that is about ``answer``."""
    weights = whole.weight_bounds.rows(rows)
    return Verdict(
        bounds=bounds,
        made=whole.later.rows(rows) if whole.routed else None,
        answer=answer,
        judged=bounds.judged,
        distinct=whole.distinct[rows],
        in_range=whole.in_range[rows],
        selection=whole.selection[rows],
        logits=None if whole.logits is None else whole.logits[rows],
        weights=whole.weights[rows],
        decided=weights.decided,
        apart=whole.apart[rows],
        weight_bounds=weights,
        routed=whole.routed,
    )
