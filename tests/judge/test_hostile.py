"""A search for false alarms: honest float32 and 16-bit code on the worst numbers to be found.

Hypothesis draws hostile rows, and a climb changes one number at a time towards the bound. What
share of its bound the worst honest answer uses is asserted from both sides: never all of it, and
enough that the bound is known to be needed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from gates import DTYPES, ORDERS, PLAIN, Array, assert_permitted, bounds_of, made, matmul
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from score_forms import SIGMOIDS, SOFTMAXES, SOFTPLUSES

from moe_routing.conformance.judge import Interval
from moe_routing.conformance.judge.scores import score_bounds
from moe_routing.reference import RouterConfig
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS
from moe_routing.reference.scores import SCORE_FUNCTIONS

torch = pytest.importorskip("torch")

FORMS = {"softmax": SOFTMAXES, "sigmoid": SIGMOIDS, "sqrtsoftplus": SOFTPLUSES}
EXTREMES = (0.0, -0.0, 2.0**-149, 2.0**-126, 1e-30, 1.0, 1.0 + 2.0**-23, 17.3, 88.72, -87.34)
EXTREMES += (-103.9, 104.0, 16.64, -62.03, 0.6931472)

search = settings(
    max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def numbers(largest: float) -> st.SearchStrategy[float]:
    inside = [value for value in EXTREMES if abs(value) <= largest]
    drawn = st.floats(-largest, largest, width=32, allow_nan=False)
    return st.one_of(st.sampled_from(inside), drawn, st.integers(-8, 8).map(float))


def rows(largest: float, most: int) -> st.SearchStrategy[list[float]]:
    return st.lists(numbers(largest), min_size=1, max_size=most)


@pytest.mark.parametrize("dtype", DTYPES)
@seed(31)
@search
@given(x=rows(2.0**14, 12), w=rows(2.0**14, 12), scale=st.integers(-60, 0))
def test_no_hostile_row_leaves_the_bounds_of_its_logit(
    dtype: str, x: list[float], w: list[float], scale: int
) -> None:
    n = min(len(x), len(w))
    floor = scale if dtype == "float32" else scale % 9 - 8
    inputs = made(dtype, np.array([x[:n]]), np.array([w[:n]]) * 2.0**floor)
    for kind, form in (("float32", FLOAT32), ("input", INPUT_FORMATS[dtype])):
        bound = bounds_of(inputs, logits_dtype=kind)
        if bound.overflows.any():
            continue
        for order in ORDERS:
            got = form.round(matmul(inputs.hidden, inputs.gate_weight, order))
            assert_permitted(bound, got, f"{order} sums of {x[:n]} and {w[:n]}")


def used(score: str, form: Callable[[Array], Array], z: Array) -> Array:
    """The share ``[T]`` of its bound that each row of an honest answer uses, at its worst.

    Scores near the end of the range use all of it as soon as they are flushed: only leaving
    the bound counts there.
    """
    config = RouterConfig(num_experts=z.shape[1], top_k=1, score=score)
    bound = score_bounds(config, Interval.point(z.astype(np.float64)), FLOAT32, PLAIN).scores
    exact = SCORE_FUNCTIONS[score](z.astype(np.float64))
    with np.errstate(all="ignore"):
        got = form(z).astype(np.float64)
        allowed = np.where(got > exact, bound.hi - exact, exact - bound.lo)
        share = np.where(got == exact, 0.0, np.abs(got - exact) / allowed)
    share = np.where((exact > 1e-30) | ~bound.contains(got), share, 0.0)
    return np.where(bound.contains(got), np.minimum(share, 1.0), np.maximum(share, 2.0)).max(axis=1)


@seed(32)
@search
@given(row=rows(104.0, 12))
def test_no_hostile_row_leaves_the_bounds_of_its_scores(row: list[float]) -> None:
    z = np.array([row], dtype=np.float32)
    for score, forms in FORMS.items():
        for name, form in forms.items():
            share = used(score, form, z)[0]
            assert share <= 1.0, f"{name} {score} of {row} uses {share:.3g} of its bound"


def climbed(share: Callable[[Array], Array], z: Array, rng: np.random.Generator) -> float:
    """Change one number of each row at a time, keep what uses more; return the most used."""
    best = share(z)
    for step in range(150):
        at = rng.integers(0, z.shape[1], len(z))
        other = z.copy()
        size = rng.choice([30.0, 1.0, 1e-3, 1e-6], len(z)) * rng.normal(size=len(z))
        drawn = z[np.arange(len(z)), at] + size
        if step % 5 == 0:
            drawn = rng.uniform(-100, 88, len(z))
        other[np.arange(len(z)), at] = np.clip(drawn, -100, 88)
        shares = share(other)
        better = shares > best
        z, best = np.where(better[:, None], other, z), np.where(better, shares, best)
    return float(best.max())


@pytest.mark.parametrize(
    ("score", "experts", "least"),
    [("softmax", 2, 0.5), ("softmax", 8, 0.5), ("sigmoid", 1, 0.2), ("sqrtsoftplus", 1, 0.12)],
)
def test_a_climb_towards_the_bound_of_a_score_does_not_reach_it(
    score: str, experts: int, least: float
) -> None:
    rng = np.random.default_rng(experts)
    reached = {}
    for name, form in FORMS[score].items():
        z = rng.normal(size=(64, experts)).astype(np.float32) * 20
        reached[name] = climbed(lambda z, form=form: used(score, form, z), z, rng)
    assert max(reached.values()) <= 1.0, f"an honest {score} leaves its bound: {reached}"
    assert max(reached.values()) >= least, f"no honest {score} comes near its bound: {reached}"
