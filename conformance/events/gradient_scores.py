"""Events of gradients: scores that saturate, or are so small that exponentials overflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.gradients import differentiated, flows, rows_of
from moe_routing.conformance.judge.gradients import GradientFacts
from moe_routing.implementations import Capabilities

HIGH = 18.0
"""A logit from which a sigmoid in float32 is 1."""

OVERFLOWS = 88.8
"""A logit below whose negative ``exp(-z)`` overflows float32."""


def _by_sigmoid(facts: GradientFacts) -> bool:
    config = facts.bounds.config
    return config.weights_from == "sigmoid_of_selected" or (
        config.score == "sigmoid" and config.weights_from in ("scores", "masked_scores")
    )


def _saturates(facts: GradientFacts) -> bool:
    bounds = facts.bounds
    scores = bounds.reference.gathered[bounds.judged]
    near = (scores > 1.0 - 2.0**-24) & (scores <= 1.0)
    return bounds.config.score != "sqrtsoftplus" and bool(near.any()) and flows(facts, "logits")


def _small(capabilities: Capabilities) -> Iterator[Case]:
    """Yield cases of low logits, first where the score itself is the sigmoid."""
    rows = [[-12.0, -11.0, -13.0, -10.0], [-14.0, -11.5, -12.0, -13.5]]
    pairs: tuple[Callable[[tuple[str, str]], bool], ...] = (
        lambda pair: pair == ("sigmoid", "scores"),
        lambda pair: "sigmoid" in (pair[0], pair[1][:7]),
    )
    for pair in pairs:
        yield from rows_of(rows=rows, wants={"score and weights": pair})(capabilities)


differentiated(
    "saturated",
    "a logit so high that its sigmoid, or its share, is 1 in float32",
    lambda f: _saturates(f),
    rows_of(rows=[[HIGH + 2.0, 0.5, -HIGH, 1.0], [-1.0, 20.0, -19.0, 0.25]]),
)
differentiated(
    "overflowing-exponential",
    "a sigmoid of a logit whose negative has an exponential that overflows",
    lambda f: (
        _by_sigmoid(f)
        and bool((f.bounds.reference.operated[f.bounds.judged] < -OVERFLOWS).any())
        and flows(f, "logits")
    ),
    rows_of(
        rows=[[1.0, -90.0, -0.5, -100.0], [-95.0, 2.0, 0.25, -89.0]],
        wants={"score and weights": lambda pair: "sigmoid" in (pair[0], pair[1][:7])},
    ),
)
differentiated(
    "small-sigmoid",
    "a sigmoid of an answered expert below 2^-13, through which a gradient goes",
    lambda f: (
        _by_sigmoid(f)
        and bool((f.bounds.reference.gathered[f.bounds.judged] < 2.0**-13).any())
        and flows(f, "logits")
    ),
    _small,
)
