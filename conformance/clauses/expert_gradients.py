"""Clauses of the chapter on experts about gradients (docs/spec/experts.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_routing.conformance.clauses.registry import Check, clause
from moe_routing.conformance.events import members
from moe_routing.conformance.explain.expert_gradients import expert_gradient_failure
from moe_routing.conformance.explain.experts import call_line
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.expert_gradients import choose_expert_gradient_case
from moe_routing.conformance.generators.experts import TOKENS, Wishes
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.judge.gradients import Judged
from moe_routing.conformance.trial.expert_gradients import ExpertGradientTrial
from moe_routing.implementations import Capabilities
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.formats import Bools

if TYPE_CHECKING:
    from moe_routing.conformance.calls.expert_gradients import ExpertGradientCase

FEW = 25
"""The cases that are drawn for a clause about one part of the gradients."""

SOME = tuple(n for n in TOKENS if n)


def _gradients(
    name: str,
    why: str,
    *,
    offers: dict[str, tuple[Any, ...]] | None = None,
    poison: str = "",
    **parts: Any,
) -> Callable[[Check], Check]:
    wishes = Wishes(offers={"tokens": SOME, **(offers or {})}, poison=poison)

    def strategy(capabilities: Capabilities) -> Seeded[ExpertGradientCase]:
        made = partial(choose_expert_gradient_case, capabilities=capabilities, wishes=wishes)
        return Seeded(made)

    register: Callable[[Check], Check] = clause(
        f"experts.{name}",
        "MUST",
        why=why,
        bugs=("M86",),
        method="expert_gradients",
        strategy=strategy,
        **{"most": FEW, **parts},
    )
    return register


def _lists(axis: str, value: Any) -> Callable[[Capabilities], str | None]:
    """Return what says that a claim does not list ``value``, which the clause is about."""

    def lacking(capabilities: Capabilities) -> str | None:
        listed = getattr(capabilities.computes, axis)
        return None if value in listed else f"computes.{axis}={listed} has no {value}"

    return lacking


def _first(
    trial: ExpertGradientTrial, wrong: Iterable[tuple[Judged, Bools]], stage: str
) -> Failure | None:
    """Return the failure of the first gradient with a wrong number."""
    for judged, where in wrong:
        if where.any():
            return expert_gradient_failure(stage, trial.learning, judged, where)
    return None


@_gradients(
    "gradients",
    "Experts that learn from part of their tokens, or through the wrong slope, still learn "
    "something, and no loss says what is missing.",
    rules=("EXP-21", "EXP-22", "EXP-23", "EXP-24"),
    events=(
        *members("learned-activation"),
        "learned-gated",
        "learned-plain",
        "learned-biases",
        "learned-weight-on-output",
        "learned-weight-on-input",
        "learned-square",
        "learned-several",
        "learned-repeated",
        "learned-zero-weight",
        "learned-routes-above-256",
        "learned-row-offsets-past-16-bits",
        *members("learned-large"),
        *members("learned-mixed"),
    ),
    most=None,
)
def gradients(trial: ExpertGradientTrial) -> Failure | None:
    """Gradients of hidden states, weights, matrices and biases are right, up to rounding."""
    return _first(trial, ((each, each.wrong) for each in trial.judged.values()), "gradients")


@_gradients(
    "gradients-exact",
    "A gradient that is summed in 16 bits stops growing after a few hundred tokens.",
    rules=("EXP-25",),
    events=("learned-exact", "learned-sum-in-16-bits"),
    offers={"values": ("exact",), "load": ("one", "two"), "absence": ("none",)},
    needs=_lists("activations", "relu"),
)
def gradients_exact(trial: ExpertGradientTrial) -> Failure | None:
    """A gradient that no order of operations rounds is right to the last bit."""
    judged = trial.judged.values()
    return _first(trial, ((e, e.wrong & (e.permitted.rad == 0.0)) for e in judged), "exact")


@_gradients(
    "gradients-absent",
    "A sentinel that is clamped to a real expert trains the router on an expert that never ran.",
    rules=("EXP-26",),
    events=("learned-some-absent", "learned-token-absent", "learned-absent-not-finite"),
    offers={"absence": ("some", "tokens")},
    poison="nan",
    needs=_lists("absent", True),
)
def gradients_absent(trial: ExpertGradientTrial) -> Failure | None:
    """An absent route has no gradient and adds to none, whatever any expert holds."""
    return _first(trial, _of_the_absent(trial), "absent")


def _of_the_absent(trial: ExpertGradientTrial) -> Iterable[tuple[Judged, Bools]]:
    present = trial.learning.layer.present
    some = np.asarray(~present.all(axis=1))
    for name, judged in trial.judged.items():
        if name == "weights":
            yield judged, judged.wrong & ~present
        elif name == "hidden":
            yield judged, judged.wrong & some[:, None]
        elif some.any():
            yield judged, judged.wrong


@_gradients(
    "gradients-empty",
    "A gradient that nobody writes is what the memory held: the optimizer moves an expert that no "
    "token chose.",
    rules=("EXP-27",),
    events=("learned-empty", "learned-unchosen-nan", "learned-no-tokens"),
    offers={
        "tokens": TOKENS,
        "load": ("one", "two", "first", "last", "every-other"),
        "experts": (3, 4, 8, 16),
    },
    poison="nan",
    without_tokens=True,
)
def gradients_empty(trial: ExpertGradientTrial) -> Failure | None:
    """Of an expert without routes every gradient is exactly 0, whatever it holds."""
    _stain(trial)
    empty = np.asarray(trial.learning.layer.counts == 0)
    return _first(trial, _of_the_empty(trial, empty), "empty")


def _of_the_empty(trial: ExpertGradientTrial, empty: Bools) -> Iterable[tuple[Judged, Bools]]:
    for name, judged in trial.judged.items():
        if name in OF_EXPERTS:
            rows = empty.reshape(-1, *(1,) * (judged.answered.ndim - 1))
            yield judged, judged.wrong & rows


def _stain(trial: ExpertGradientTrial) -> None:
    """Differentiate a call of the same sizes in which every expert is chosen: it fills memory."""
    inputs, experts = trial.case.inputs, trial.case.config.num_experts
    if not inputs.num_tokens:
        return
    finite = {
        n: np.nan_to_num(a, posinf=1.0, neginf=1.0)
        for n, a in inputs.arrays().items()
        if n in OF_EXPERTS
    }
    ids = np.arange(inputs.expert_ids.size).reshape(inputs.expert_ids.shape) % experts
    busy = replace(inputs, expert_ids=ids, weights=np.ones_like(inputs.weights), **finite)
    case = replace(trial.case, inputs=busy)
    if not trial.excuses(case) and not trial.capabilities.computes.refusals(case.config, busy):
        _ = trial.another(case).native


@_gradients(
    "gradients-untouched",
    "Hidden states and cotangents are read again by the rest of the backward pass.",
    rules=("EXP-28",),
    events=("learned-several",),
)
def gradients_untouched(trial: ExpertGradientTrial) -> Failure | None:
    """The call leaves the inputs and the cotangent as they were."""
    if not trial.changed:
        return None
    summary = f"wrote to its inputs: {', '.join(trial.changed)}"
    line = call_line(trial.learning.layer)
    return Failure(stage="untouched", summary=summary, details=(line,))
