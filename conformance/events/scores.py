"""Events of the scores: where their function saturates or underflows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import event, selected
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import FLOAT32, Bools, Floats


@event(
    "saturated",
    "scores that all round to 1 though the logits differ",
    lambda b: (
        b.config.score == "sigmoid"
        and bool((FLOAT32.round(b.reference.scores) == 1.0).all(axis=1).any())
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"score and weights": lambda pair: pair[0] == "sigmoid"}
    row = np.resize((20.0, 24.0, 18.0, 30.0), (1, fitting_experts(capabilities, 4)))
    for top_k in (2, 1):
        yield from table_cases(capabilities, row, top_k=top_k, wants=wants)


@event(
    "underflow",
    "a winner whose score is below the normal range of float32",
    lambda b: (
        bool((selected(b, b.reference.scores)[b.judged] < FLOAT32.tiny).any())
        and b.config.score != "identity"
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[0.0, -150.0, -200.0, -175.0], [-200.0] * 4]
    for top_k in (2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k)
        wants = {"score and weights": lambda pair: pair[0] not in ("softmax", "identity")}
        yield from table_cases(capabilities, rows[::-1], top_k=top_k, wants=wants)


@event(
    "softplus-nearly-linear",
    "a winner's logit from 8 to 12 under sqrtsoftplus, where softplus is not yet the logit itself",
    lambda b: (
        b.config.score == "sqrtsoftplus"
        and b.config.weights_from.endswith("scores")
        and bool(_from_8_to_12(selected(b, b.reference.operated)[b.judged]).any())
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"score and weights": lambda pair: pair[0] == "sqrtsoftplus"}
    for top_k in (2, 1):
        yield from table_cases(capabilities, [[10.25, 1.0, -1.0, -2.0]], top_k=top_k, wants=wants)


def _from_8_to_12(logits: Floats) -> Bools:
    return (logits >= 8.0) & (logits <= 12.0)


@event(
    "small-sigmoid",
    "a winner's sigmoid below 2**-10 and in the normal range, not renormalised",
    lambda b: (
        b.config.score == "sigmoid"
        and b.config.weights_from.endswith("scores")
        and b.config.renormalize is None
        and bool(_is_small(selected(b, b.reference.scores)[b.judged]).any())
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"score and weights": lambda pair: pair[0] == "sigmoid", "renormalize": _is_none}
    rows = [[-14.0, -9.0, -11.5, -17.0], [-16.0, -12.5, -15.0, -10.0]]
    for top_k in (2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k, wants=wants)


@event(
    "tiny-softplus",
    "a winner's logit from -80 to -20 under sqrtsoftplus, where 1 + exp of it rounds to 1",
    lambda b: (
        b.config.score == "sqrtsoftplus"
        and b.config.weights_from.endswith("scores")
        and bool(_from_80_to_20_below(selected(b, b.reference.operated)[b.judged]).any())
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"score and weights": lambda pair: pair[0] == "sqrtsoftplus"}
    for top_k in (2, 1):
        yield from table_cases(
            capabilities, [[-40.0, -24.0, -32.0, -28.0]], top_k=top_k, wants=wants
        )


def _from_80_to_20_below(logits: Floats) -> Bools:
    return (logits >= -80.0) & (logits <= -20.0)


def _is_small(scores: Floats) -> Bools:
    return (scores < 2.0**-10) & (scores > FLOAT32.tiny)


def _is_none(rule: object) -> bool:
    return rule is None
