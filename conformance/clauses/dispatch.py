"""Clauses of the chapter on dispatch (docs/spec/dispatch.md)."""

from __future__ import annotations

from dataclasses import replace

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.explain.failure import Failure, first_failure
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.generators.construct import with_config
from moe_routing.conformance.trial.trial import Trial

_PLAIN = {"weights_from": ("scores", "masked_scores"), "expert_table": (False,)}
_FOCUS = Focus(recipes=("table", "lattice", "normal", "near-ties"))


@clause(
    "dispatch.softmax-without-bias",
    "MUST",
    why="A block without a selection bias is a softmax router in every model that dispatches.",
    rules=("DIS-2", "DIS-5"),
    bugs=("M14",),
    method="dispatch",
    narrow={**_PLAIN, "score": ("softmax",), "selection_bias": ("none",)},
    events=("clear-winners", "weights-apart"),
    focus=_FOCUS,
)
def softmax_without_bias(trial: Trial) -> Failure | None:
    """Without a selection bias the dispatcher routes by softmax."""
    return _dispatched(trial)


@clause(
    "dispatch.sigmoid-with-bias",
    "MUST",
    why="A selection bias marks the sigmoid routers; routed by softmax, GLM and DeepSeek-V3 ran "
    "on wrong experts without an error.",
    rules=("DIS-1", "DIS-3", "DIS-4", "DIS-6"),
    bugs=("M04", "M14"),
    method="dispatch",
    narrow={**_PLAIN, "score": ("sigmoid",), "selection_bias": ("gate", "block", "statics")},
    events=("bias-decides", "zero-bias"),
    focus=_FOCUS,
)
def sigmoid_with_bias(trial: Trial) -> Failure | None:
    """With a selection bias, wherever it is placed, the dispatcher routes by sigmoid."""
    return _dispatched(trial)


def _dispatched(trial: Trial) -> Failure | None:
    """Judge the dispatcher's answer where the configured score is softmax in any case."""
    unhinted = trial.of(trial.once(_without_hint))
    failure = first_failure(unhinted.judged_as(trial.bounds), "selection", "weights")
    if failure is None:
        return None
    return replace(failure, summary=f"{failure.summary}; {trial.case.config.score} is due")


def _without_hint(case: Case) -> Case:
    return with_config(case, score="softmax")
