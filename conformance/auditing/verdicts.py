"""The verdict on each part that was seen of a block, by the judge of its chapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.auditing.excused import excused
from moe_routing.conformance.auditing.finding import Finding
from moe_routing.conformance.auditing.sums import experts_ball, layer_verdict, whole_verdict
from moe_routing.conformance.calls.expert_gradients import (
    ExpertGradientCase,
    ExpertGradientInputs,
)
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.explain.expert_gradients import expert_gradient_failure
from moe_routing.conformance.explain.experts import call_line, experts_failure
from moe_routing.conformance.explain.failure import Failure, first_failure
from moe_routing.conformance.explain.gradients import gradient_failure
from moe_routing.conformance.judge import Bounds, Verdict, judge
from moe_routing.conformance.judge.expert_gradients import Learning
from moe_routing.conformance.judge.experts import Layer
from moe_routing.conformance.judge.gradients import GradientFacts, GradientVerdict
from moe_routing.conformance.trial.boundary import Malformed, receive, to_numpy
from moe_routing.implementations.models.arrays import of_dtype
from moe_routing.implementations.models.seen import (
    Seen,
    SeenExpertGradients,
    SeenExperts,
    SeenLayer,
    SeenRouting,
    SeenWhole,
    Unjudged,
)
from moe_routing.reference import ExpertsInputs
from moe_routing.reference.formats import Floats

_CLAUSES = {
    "layout": "selection.valid-top-k",
    "logits": "logits.match",
    "selection": "selection.valid-top-k",
    "weights": "weights.match",
}


def findings(seen: Seen | Unjudged) -> Iterator[Finding]:
    """Judge one part of a block."""
    if isinstance(seen, Unjudged):
        yield Finding(
            path=seen.path,
            block=seen.block,
            part=seen.part or "",
            status="unjudged",
            reason=seen.reason,
        )
        return
    with np.errstate(all="ignore"):
        yield from _JUDGES[type(seen)](seen)


def _routing(seen: SeenRouting) -> Iterator[Finding]:
    bounds = Bounds(seen.config, seen.inputs, seen.numerics)
    try:
        received = receive(seen.routing, seen.config, seen.inputs.num_tokens)
    except Malformed as error:
        failure = Failure(stage="layout", summary=str(error))
        yield _of(seen, "routing", 0, "layout.dtypes", failure)
        return
    verdict = judge(bounds, received.answer, logits=seen.logits)
    failure_ = first_failure(verdict, "logits", "selection", "weights")
    clause = _CLAUSES[failure_.stage] if failure_ else "selection.valid-top-k"
    case = Case(config=seen.config, inputs=seen.inputs)
    for each in (
        _of(seen, "routing", int(verdict.judged.sum()), clause, failure_),
        *_router_gradients(seen, bounds, verdict),
    ):
        yield excused(each, seen.adapter, seen.device, bounds, case)


def _router_gradients(seen: SeenRouting, bounds: Bounds, verdict: Verdict) -> Iterator[Finding]:
    part = "router gradients"
    if seen.detached:
        summary = "nothing leads back from its weights to the gate, which requires a gradient"
        failure = Failure(stage="gradients.gate-weight", summary=summary)
        yield _of(seen, part, seen.inputs.num_tokens, "gradients.gate-weight", failure)
        return
    if seen.cotangent is None:
        yield _unjudged(seen, part, seen.ungraded)
        return
    given = {
        name: to_numpy(name, each).astype(np.float64)
        for name, each in seen.gradients.items()
        if each is not None
    }
    facts = GradientFacts(bounds=bounds, cotangent=seen.cotangent)
    made = GradientVerdict(
        facts=facts,
        answer=verdict.answer,
        given=_shaped(seen, given),
        routed=seen.logits == "routed",
    )
    judged = [made.of(name) for name in seen.gradients]
    wrong = next((each for each in judged if each.wrong.any()), None)
    if wrong is None and not any(each.decided for each in judged):
        yield _unjudged(seen, part, "rounding decides nothing about them")
        return
    name = "logits" if wrong is None else wrong.name
    clause = f"gradients.{_GRADIENTS.get(name, name)}"
    failure_ = None if wrong is None else gradient_failure(made, wrong)
    yield _of(seen, part, int(verdict.judged.sum()), clause, failure_)


_GRADIENTS = {
    "gate_weight": "gate-weight",
    "gate_bias": "gate-bias",
    "per_expert_scale": "expert-scale",
    "hidden_scale": "hidden-scale",
}


def _shaped(seen: SeenRouting, given: dict[str, Floats]) -> dict[str, Floats]:
    arrays = seen.inputs.arrays()
    return {n: g.reshape(arrays[n].shape) if n in arrays else g for n, g in given.items()}


def _experts(seen: SeenExperts) -> Iterator[Finding]:
    layer = Layer(seen.config, seen.inputs, seen.products)
    output = _floats("output", seen.output)
    if seen.copied is None and layer.certainly_right(output):
        yield _of(seen, "experts", len(output), "experts.match", None)
        return
    due = experts_ball(layer, seen.copied)
    wrong = ~due.contains(output)
    failure = None
    if wrong.any():
        told = Layer(seen.config, _plain(seen.inputs))
        failure = experts_failure("experts.match", told, output, wrong, due)
        failure = replace(failure, details=(call_line(layer), *failure.details[1:]))
    yield _of(seen, "experts", _decided(due), "experts.match", failure)


def _expert_gradients(seen: SeenExpertGradients) -> Iterator[Finding]:
    part = "experts gradients"
    cotangent = _floats("cotangent", seen.cotangent)
    of_tokens = not set(seen.gradients) - {"hidden", "weights"}
    learning = Learning(seen.config, seen.inputs, cotangent, seen.products, matrices=not of_tokens)
    given = {n: _floats(n, g) for n, g in seen.gradients.items() if n in learning.permitted}
    judged = learning.judged(given)
    wrong = next((judged[name] for name in given if judged[name].wrong.any()), None)
    if not any(judged[name].decided for name in given):
        yield _unjudged(seen, part, "rounding decides nothing about them")
        return
    failure = None
    if wrong is not None:
        told = replace(learning, inputs=_plain(seen.inputs))
        failure = expert_gradient_failure("experts.gradients", told, wrong, wrong.wrong)
        call = f"call    {call_line(learning.layer)}"
        failure = replace(failure, details=(call, *failure.details[1:]))
    finding = _of(seen, part, seen.inputs.num_tokens, "experts.gradients", failure)
    if of_tokens:
        yield finding
        return
    case = ExpertGradientCase(config=seen.config, inputs=_with(seen.inputs, cotangent))
    yield excused(finding, seen.adapter, seen.device, learning, case)


def _with(inputs: ExpertsInputs, cotangent: Floats) -> ExpertGradientInputs:
    """Return a call with its cotangent; either may have more bits than the dtype of the call."""
    arrays = {**inputs.arrays(), "cotangent": cotangent}
    made: ExpertGradientInputs = of_dtype(ExpertGradientInputs, inputs.dtype, arrays)
    return made


def _plain(inputs: ExpertsInputs) -> ExpertsInputs:
    """Return a call that can be changed to tell what it looks like: weights may have more bits."""
    return ExpertsInputs(**{**vars(inputs), "dtype": "float32"})


def _layer(seen: SeenLayer) -> Iterator[Finding]:
    tokens, failure = layer_verdict(
        seen, _floats("routed", seen.routed), _floats("output", seen.output)
    )
    yield _of(seen, "layer", tokens, "layer.composes", failure)


def _whole(seen: SeenWhole) -> Iterator[Finding]:
    tokens, failure = whole_verdict(seen, _floats("output", seen.output))
    if not tokens and failure is None:
        yield _unjudged(seen, "layer", "rounding permits several choices of experts everywhere")
        return
    yield _of(seen, "layer", tokens, "layer.composes", failure)


_JUDGES: dict[type, Callable[[Any], Iterator[Finding]]] = {
    SeenRouting: _routing,
    SeenExperts: _experts,
    SeenExpertGradients: _expert_gradients,
    SeenLayer: _layer,
    SeenWhole: _whole,
}


def _of(seen: Seen, part: str, tokens: int, clause: str, failure: Failure | None) -> Finding:
    if failure is None and not tokens:
        return _unjudged(seen, part, "its results are defined for no token")
    at = None if failure is None or failure.token is None else int(seen.tokens[failure.token])
    return Finding(
        path=seen.path,
        block=seen.block,
        part=part,
        status="fail" if failure else "pass",
        tokens=tokens,
        clause=clause,
        failure=failure,
        token=at,
        notes=seen.notes,
    )


def _unjudged(seen: Seen, part: str, reason: str) -> Finding:
    return Finding(path=seen.path, block=seen.block, part=part, status="unjudged", reason=reason)


def _floats(name: str, native: object) -> Floats:
    found: Floats = to_numpy(name, native).astype(np.float64)
    return found


def _decided(ball: Any) -> int:
    return int(ball.decided.any(axis=1).sum())
