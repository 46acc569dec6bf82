"""Products in float32 show what is right: nothing that the whole radius leaves out is certain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.judge import single_products
from moe_routing.conformance.judge.ball_sums import product
from moe_routing.conformance.judge.balls import Ball, add
from moe_routing.conformance.judge.single_products import SingleMatrix
from moe_routing.reference.formats import BFLOAT16, FLOAT16, FLOAT32, FloatFormat

FORMS = {form.name: form for form in (FLOAT32, BFLOAT16, FLOAT16)}
SHAPES = ((3, 8, 5), (4, 40, 7), (3, 250, 6), (2, 600, 5))


def drawn(seed: int, form: FloatFormat) -> tuple[Any, Any]:
    """Return float32 factors: dense or sparse, long, or short enough for exact sums."""
    rng = np.random.default_rng(seed)
    t, n, m = SHAPES[seed % len(SHAPES)]
    a, rows = rng.standard_normal((t, n)), rng.standard_normal((m, n))
    if seed % 3 == 1:
        a, rows = np.rint(a * 4.0), np.rint(rows * 4.0)
    if seed % 5 == 1:
        a *= rng.random(a.shape) < 8.0 / n
    if seed % 5 == 2:
        rows *= rng.random(rows.shape) < 0.3
    if seed % 7 == 1:
        a[:, n // 2 :], rows[:, n // 2 :] = a[:, : n - n // 2], -rows[:, : n - n // 2]
    size = 2.0**-9 if seed % 11 == 3 else 1.0  # products below the range of float16
    return form.round(a * size).astype(np.float32), form.round(rows * size).astype(np.float32)


def answers(ball: Ball, honest: Any, seed: int) -> list[Any]:
    """Return what is permitted, and the same with one number on either side of its border."""
    rng = np.random.default_rng(seed)
    whole = ball.mid + ball.rad * rng.uniform(-1.0, 1.0, ball.mid.shape)
    found = [honest, whole, whole.astype(np.float32).astype(np.float64)]
    for share in (0.5, 0.99, 1.0 + 2.0**-18, 1.01, 1.5):
        for base in (honest, ball.mid.astype(np.float32).astype(np.float64)):
            place = tuple(int(rng.integers(0, n)) for n in ball.mid.shape)
            changed = base.copy()
            changed[place] = np.float32(ball.mid[place] + share * ball.rad[place])
            found.append(changed)
            next_ = base.copy()
            next_[place] = np.nextafter(np.float32(base[place]), np.float32(np.inf))
            found.append(next_)
    return found


@pytest.mark.parametrize("name", FORMS)
def test_what_is_certain_is_permitted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    form, sure, refused = FORMS[name], 0, 0
    for seed in range(60):
        monkeypatch.setattr(single_products, "_FEW", seed % 2 * 2**8)
        a, rows = drawn(seed, FORMS[name] if seed % 2 else FLOAT32)
        ball = product(Ball.exact(a), rows.T, form)
        honest = form.round((a @ rows.T).astype(np.float64))
        assert SingleMatrix(rows, form).holds(honest, a.astype(np.float64)), seed
        for answered in answers(ball, honest, seed):
            right = bool(ball.contains(answered).all())
            for each in (answered, form.round(answered)):
                certain = SingleMatrix(rows, form).holds(each, a.astype(np.float64))
                assert not certain or ball.contains(each).all(), seed
                sure += certain
            refused += not right
    assert sure > 300
    assert refused > 100


@pytest.mark.parametrize("name", FORMS)
def test_what_is_certain_of_two_products_is_permitted(name: str) -> None:
    """As of a gate and its delta, where each product is stored before they are added, or not."""
    form, sure, refused = FORMS[name], 0, 0
    for seed in range(60):
        (a, rows), (_, more) = (drawn(each, form) for each in (seed, seed + 60))
        more = form.round(more / (1.0, 16.0, 1024.0)[seed % 3]).astype(np.float32)
        balls = [product(Ball.exact(a), each.T, form) for each in (rows, more)]
        ball, matrix = add(*balls, form), SingleMatrix(rows, form, more)
        once = form.round(a @ rows.T + a @ more.T)
        twice = form.round(form.round(a @ rows.T) + form.round(a @ more.T))
        for answered in (*answers(ball, once, seed), *answers(ball, twice, seed)):
            right = bool(ball.contains(answered).all())
            for each in (answered, form.round(answered).astype(np.float32)):
                certain = matrix.holds(each, a.astype(np.float64))
                assert not certain or ball.contains(each).all(), seed
                sure += certain
            refused += not right
    assert sure > (100 if form is FLOAT32 else 500)
    assert refused > 200


@pytest.mark.parametrize("parts", [7, 64, 192])
def test_sums_in_another_order_are_certain_beyond_the_error_of_these(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many honest sums are of other libraries, whose parts are others."""
    rng = np.random.default_rng(parts)
    a, rows = (rng.standard_normal((each, 600)).astype(np.float32) for each in (40, 50))
    answered = np.zeros((40, 50), np.float32)
    for at in range(600):
        answered += a[:, at, None] * rows[:, at]
    monkeypatch.setattr(single_products, "_PART", parts)
    matrix = SingleMatrix(rows, FLOAT32)
    wide = answered.astype(np.float64)
    assert not np.array_equal(answered, a @ rows.T)
    assert matrix.holds(wide, a.astype(np.float64))
    wide[3, 4] += 2.0 * 600.0 * 2.0**-24 * np.abs(a[3]) @ np.abs(rows[4])
    assert not matrix.holds(wide.astype(np.float32).astype(np.float64), a.astype(np.float64))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.0 + 2.0**-40])  # of a, all is finite
def test_nothing_is_certain_of_what_float32_does_not_hold(bad: float) -> None:
    a, rows = drawn(3, FLOAT32)
    answered, one = (a @ rows.T).astype(np.float64), a.astype(np.float64)
    for place in (answered, one) if np.isfinite(bad) else (answered,):
        kept, place[0, 0] = place[0, 0], bad
        assert not SingleMatrix(rows, FLOAT32).holds(answered, one)
        place[0, 0] = kept
    assert SingleMatrix(rows, FLOAT32).holds(answered, one)


def test_a_sum_that_is_exact_has_no_neighbours() -> None:
    a, rows = drawn(4, BFLOAT16)
    exact = (a @ rows.T).astype(np.float64)
    for form in (FLOAT32, BFLOAT16):
        matrix, stored = SingleMatrix(rows, form), form.round(exact)
        assert matrix.holds(stored, a.astype(np.float64))
        stored[2, 1] *= 1.0 + form.unit_roundoff * 2.0
        assert not matrix.holds(form.round(stored), a.astype(np.float64))
