"""Sigmoid, sqrtsoftplus and logit-op bounds against exact arithmetic."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from score_forms import (
    ONE,
    SIGMOIDS,
    SOFTPLUSES,
    SPREADS,
    Array,
    plain_softplus,
    spread_rows,
    tanh_sigmoid,
    truly,
)

from moe_routing.conformance.judge import Interval
from moe_routing.conformance.judge.scores import (
    operated_bounds,
    score_bounds,
)
from moe_routing.conformance.judge.softmax import softmax_bounds
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig
from moe_routing.reference.formats import FLOAT32

torch = pytest.importorskip("torch")

PLAIN = Numerics()
U = FLOAT32.unit_roundoff


POINTS = np.concatenate(
    [np.linspace(-110, 100, 400), np.linspace(-18, 18, 400), [0.0, -0.0, 1e-30, -1e-7]]
).astype(np.float32)[:, None]


def of_points(score: str, numerics: Numerics = PLAIN) -> Interval:
    config = RouterConfig(num_experts=1, top_k=1, score=score)
    return score_bounds(config, Interval.point(POINTS.astype(np.float64)), FLOAT32, numerics).scores


def first_outside(bound: Interval, got: Array) -> str:
    i = int(np.argmax(~bound.contains(got.astype(np.float64))[:, 0]))
    return f"at z={POINTS[i, 0]!r}: {got[i, 0]!r} not in [{bound.lo[i, 0]!r}, {bound.hi[i, 0]!r}]"


@pytest.mark.parametrize(
    ("score", "form"),
    [("sigmoid", form) for form in SIGMOIDS] + [("sqrtsoftplus", form) for form in SOFTPLUSES],
)
def test_honest_sigmoids_and_softpluses_are_right_undeclared(score: str, form: str) -> None:
    bound = of_points(score)
    with np.errstate(over="ignore"):
        got = (SIGMOIDS if score == "sigmoid" else SOFTPLUSES)[form](POINTS)
    assert bound.contains(got.astype(np.float64)).all(), f"{form} {first_outside(bound, got)}"


@pytest.mark.parametrize("ulps", [-2, 2])
def test_elementary_functions_that_are_two_ulps_off_are_right(ulps: int) -> None:
    # what the maths libraries document; none at hand is that far off
    def off(values: Array) -> Array:
        values = np.asarray(values, np.float32)
        return np.where(values > 2.0**-120, (values.view(np.int32) + ulps).view(np.float32), values)

    with np.errstate(over="ignore"):
        e = off(np.exp(-np.abs(POINTS)))
        sigmoid = np.where(POINTS >= 0, ONE, e) / (ONE + e)
        root = off(np.sqrt(np.maximum(POINTS, 0) + off(np.log1p(e))))
    for score, got in (("sigmoid", sigmoid), ("sqrtsoftplus", root)):
        bound = of_points(score)
        assert bound.contains(got.astype(np.float64)).all(), f"{score} {first_outside(bound, got)}"
    for width, shift, experts in SPREADS:
        z = spread_rows(int(width), shift, experts)
        e = off(np.exp(z - z.max(axis=1, keepdims=True)))
        got = e * off(ONE / e.sum(axis=1, keepdims=True))
        bound = softmax_bounds(Interval.point(z.astype(np.float64)), FLOAT32).scores
        assert bound.contains(got.astype(np.float64)).all(), f"softmax of {experts} experts"


def test_true_sigmoids_and_softpluses_are_within_narrow_bounds() -> None:
    truths = {
        "sigmoid": truly(lambda z: 1 / (1 + mpmath.exp(-z)), POINTS),
        "sqrtsoftplus": truly(lambda z: mpmath.sqrt(mpmath.log1p(mpmath.exp(z))), POINTS),
    }
    for score, truth in truths.items():
        bound = of_points(score)
        assert bound.contains(truth).all(), f"{score} {first_outside(bound, truth)}"
        large = truth[:, 0] > 1e-15  # below, the smallest normal number shows under the root
        width = ((bound.hi - bound.lo) / truth)[large, 0] / U
        permitted = 2 * (4 * np.abs(POINTS[large, 0]) + 20)
        assert (width <= permitted).all(), f"{score} may err by {width.max():.3g} u"


@pytest.mark.parametrize(
    ("score", "form", "numerics"),
    [
        ("sigmoid", tanh_sigmoid, Numerics(sigmoid="absolute")),
        ("sqrtsoftplus", plain_softplus, Numerics(softplus="absolute")),
    ],
)
def test_forms_with_an_absolute_error_are_right_only_where_declared(
    score: str, form: Callable[[Array], Array], numerics: Numerics
) -> None:
    got, declared = form(POINTS), of_points(score, numerics)
    assert declared.contains(got.astype(np.float64)).all(), first_outside(declared, got)
    refused = ~of_points(score).contains(got.astype(np.float64))[:, 0]
    assert refused.any(), "right undeclared: the declaration is not needed"
    assert POINTS[refused].max() < 0, "the absolute error shows only where scores are small"


def test_a_softcap_and_a_multiplier_keep_honest_logits_within_bounds() -> None:
    for cap, factor in itertools.product((None, 1.0, 30.0), (1.0, 0.1768, -1.0, 0.0)):
        config = RouterConfig(num_experts=1, top_k=1, logit_softcap=cap, logit_multiplier=factor)
        bound = operated_bounds(config, Interval.point(POINTS.astype(np.float64)), FLOAT32)
        got = torch.tensor(POINTS) * factor
        if cap is not None:
            got = torch.tanh(got / cap) * cap
        assert bound.contains(got.double().numpy()).all(), f"softcap={cap} multiplier={factor}"
        wide = Interval(POINTS.astype(np.float64) - 1, POINTS.astype(np.float64) + 1)
        assert (operated_bounds(config, wide, FLOAT32).lo <= bound.lo).all(), "not monotone"
