"""Failures as values: what went wrong, at which stage, in the words a person can act on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.files import case_to_json
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.explain import numbers, story
from moe_routing.conformance.explain.numbers import listed, show
from moe_routing.conformance.explain.onset import Onset, onset_lines
from moe_routing.conformance.explain.ratio import ratio_words
from moe_routing.conformance.explain.token_view import SHOWN, TokenView, token_view
from moe_routing.conformance.judge import NONE, Interval, Verdict
from moe_routing.reference.quick import every

STAGES = ("layout", "logits", "selection", "weights")
"""The stages that a verdict can fail at, in pipeline order."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One broken clause on one case: the stage, the first differing token, the story.

    ``summary`` is one line, ``details`` the stage-by-stage lines beneath it, ``view`` the
    same token as values, for drawing it. ``case`` is the call that went wrong, if
    not the one that the clause was given: one that breaks the clause by itself;
    ``made`` is that call where the clause made it of its case, which stays the failing one.
    It is ``steady`` unless the same call, repeated, passed.
    """

    stage: str
    summary: str
    token: int | None = None
    details: tuple[str, ...] = ()
    view: TokenView | None = None
    case: Case | None = None
    made: AnyCase | None = None
    steady: bool = True


def lines_of(
    failure: Failure | None, case: AnyCase | None, onsets: Sequence[Onset] = ()
) -> tuple[str, ...]:
    """Return a failure line by line: of one token, or else of the call as a whole."""
    details = failure.details if failure else ()
    calls, rest = details[:1], details[1:]
    if case is not None and kind_of(case).routes and not (failure and failure.view):
        calls, rest = _calls(failure, case), details
    return (*calls, *onset_lines(onsets), *rest)


def _calls(failure: Failure | None, case: AnyCase) -> tuple[str, ...]:
    """Return the call that went wrong, and the case where that is another one."""
    made = failure.made if failure else None
    if made is None or _form(made) == _form(case):
        return (story.call_line(case.config, case.inputs),)
    kept = f"case    {story.call(case.config, case.inputs)}, from which the call was made"
    return (story.call_line(made.config, made.inputs), kept)


def _form(case: AnyCase) -> tuple[object, object]:
    form = case_to_json(case, compact=True)
    return form["config"], form["inputs"]


def first_failure(verdict: Verdict, *stages: str) -> Failure | None:
    """Return the first thing wrong among ``stages``, by pipeline order, or None."""
    checks = {"logits": _logits, "selection": _selection, "weights": _weights}
    for stage in STAGES:
        if stage in stages and (failure := checks[stage](verdict)) is not None:
            return failure
    return None


def at(name: str, *indices: int) -> str:
    """Return ``name[3, 1]``."""
    return f"{name}[{', '.join(str(int(i)) for i in indices)}]"


def span(bounds: Interval, *index: int) -> str:
    """Return the permitted interval at an index."""
    return numbers.span((float(bounds.lo[index]), float(bounds.hi[index])))


def _logits(verdict: Verdict) -> Failure | None:
    answered = verdict.answer.logits
    if verdict.logits is None or answered is None or verdict.logits.all():
        return None
    t, e = np.argwhere(~verdict.logits)[0]
    bounds = verdict.bounds.logits.permitted
    return token_failure(
        verdict,
        int(t),
        stage="logits",
        summary=(
            f"{at('logits', t, e)}={show(answered[t, e])}, but should be in {span(bounds, t, e)}"
        ),
    )


def _selection(verdict: Verdict) -> Failure | None:
    config, answer = verdict.bounds.config, verdict.answer
    for fine, wrong in (
        (verdict.in_range, f"every id should be in [0, {config.num_experts})"),
        (verdict.distinct, "the ids of a token should be distinct"),
        (verdict.selection, "rounding cannot explain this choice"),
    ):
        if not every(fine):
            t = int(np.argmin(fine))
            due = verdict.bounds.reference.expert_ids[t].tolist()
            summary = _chosen(t, answer.expert_ids[t].tolist(), due, wrong)
            return token_failure(verdict, t, stage="selection", summary=summary)
    return None


def _chosen(token: int, answered: list[int], due: list[int], wrong: str) -> str:
    """Return which experts were chosen and which are due; of many, those that differ."""
    name = at("expert_ids", token)
    if len(due) <= SHOWN:
        return f"{name}={answered}, but {wrong}; the reference selects {due}"
    others, left_out = Counter(answered) - Counter(due), Counter(due) - Counter(answered)
    chosen = f"{name} has {listed([*others.elements()])}"
    return f"{chosen}, but {wrong}; the reference selects {listed([*left_out])} instead"


def _weights(verdict: Verdict) -> Failure | None:
    if every(verdict.weights):
        return None
    t, k = np.argwhere(~verdict.weights)[0]
    if verdict.apart[t, 0] != NONE:
        return token_failure(verdict, int(t), stage="weights", summary=ratio_words(verdict, int(t)))
    expert = int(verdict.answer.expert_ids[t, k])
    return token_failure(
        verdict,
        int(t),
        stage="weights",
        summary=(
            f"{at('weights', t, k)}={show(verdict.answer.weights[t, k])}, but should be in "
            f"{span(verdict.weight_bounds.permitted, t, k)} (expert {expert})"
        ),
    )


def token_failure(verdict: Verdict, token: int, *, stage: str, summary: str) -> Failure:
    """Return the failure of one token, with its story and its values."""
    return Failure(
        stage=stage,
        token=token,
        summary=summary,
        details=story.story(verdict, token),
        view=token_view(verdict, token),
    )
