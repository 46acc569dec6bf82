"""Balls against exact arithmetic in fractions, and against honest forms in three dtypes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.judge import ball_sums
from moe_routing.conformance.judge.ball_sums import Matrix, product, total
from moe_routing.conformance.judge.balls import Ball, add, div, monotone, mul, sigmoid, softmax
from moe_routing.conformance.judge.intervals import underflow
from moe_routing.reference import scores
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, FloatFormat, Floats

FORMS = pytest.mark.parametrize("form", INPUT_FORMATS.values(), ids=lambda form: form.name)
RNG = np.random.default_rng


def numbers(rng: np.random.Generator, form: FloatFormat, *shape: int) -> Floats:
    """Numbers that ``form`` holds: of one size, of many, near its ends, and small integers."""
    kind = rng.integers(4)
    low, high = {0: (0, 0), 1: (-8, 8), 2: (form.min_exponent - 4, 2), 3: (-2, 2)}[int(kind)]
    values = rng.standard_normal(shape) * 2.0 ** rng.integers(low, high + 1, shape)
    return form.round(np.rint(values * 8) / 8 if kind == 3 else values)


def stored(value: Any, form: FloatFormat, rng: np.random.Generator) -> Floats:
    """A float32 result that is stored, or not, and whose subnormals are flushed, or not."""
    with np.errstate(all="ignore"):
        out = FLOAT32.round(value)
        out = form.round(out) if rng.integers(2) else out
    if rng.integers(2) and form.name != "float16":
        out = np.where(np.abs(out) < FLOAT32.tiny, 0.0, out)
    return np.asarray(out)


def summed(values: Any, form: FloatFormat, rng: np.random.Generator, stores: bool) -> float:
    """A sum in some order: one after the other, or as a tree; partial sums stored or not."""
    parts = [float(v) for v in rng.permutation(values)]
    tree, narrow = rng.integers(2), form if stores else FLOAT32
    while len(parts) > 1:
        if tree:
            pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
            parts = [float(stored(sum(pair), narrow, rng)) for pair in pairs]
        else:
            parts = [float(stored(parts[0] + parts[1], FLOAT32, rng)), *parts[2:]]
    return float(stored(parts[0], form, rng))


def within(ball: Ball, honest: Floats, exact: Any) -> None:
    """Hold the distance of every honest number from the exact one, in fractions.

    Where a radius is 0 an exact number may have bits that float64 cuts off, as every format does.
    """
    fine = np.broadcast_to(ball.contains(honest), honest.shape)
    decided, mid, rad = (
        np.broadcast_to(each, honest.shape) for each in (ball.decided, ball.mid, ball.rad)
    )
    for place in np.ndindex(honest.shape):
        assert fine[place], (place, honest[place], mid[place], rad[place])
        if decided[place]:
            cut = abs(Fraction(float(mid[place]))) * Fraction(2) ** -53
            off = abs(Fraction(float(honest[place])) - exact[place])
            assert off <= (Fraction(float(rad[place])) or cut), (place, float(off), rad[place])


def fractions(values: Floats) -> Any:
    out = np.empty(values.shape, object)
    for place in np.ndindex(values.shape):
        out[place] = Fraction(float(values[place]))
    return out


@FORMS
@pytest.mark.parametrize("seed", range(16))
def test_a_sum_in_any_order_is_within(form: FloatFormat, seed: int) -> None:
    rng = RNG(seed)
    values = numbers(rng, form, 6, int(rng.integers(1, 40)))
    honest = np.array([summed(row, form, rng, stores=True) for row in values])
    within(total(Ball.exact(values), form), honest, fractions(values).sum(axis=1))


@FORMS
@pytest.mark.parametrize("seed", range(8))
def test_a_running_sum_is_within_where_every_step_may_be_stored(
    form: FloatFormat, seed: int
) -> None:
    rng = RNG(seed)
    values = numbers(rng, form, 6, int(rng.integers(1, 9)))
    running = np.zeros(6)
    for column in values.T:
        running = stored(running + column, form, rng)
    ball = total(Ball.exact(values), form, stores=values.shape[1])
    within(ball, running, fractions(values).sum(axis=1))


@FORMS
@pytest.mark.parametrize("seed", range(10))
def test_a_product_with_a_matrix_is_within(form: FloatFormat, seed: int) -> None:
    rng = RNG(seed)
    n = int(rng.integers(1, 33))
    x, matrix = numbers(rng, form, 3, n), numbers(rng, form, n, 4)
    x[:, rng.random(n) < 0.3] = 0.0
    honest, exact = np.zeros((3, 4)), np.zeros((3, 4), object)
    for i, j in np.ndindex(3, 4):
        products = stored(x[i] * matrix[:, j], FLOAT32, rng)
        honest[i, j] = stored(summed(products, form, rng, stores=False), form, rng)
        exact[i, j] = (fractions(x[i]) * fractions(matrix[:, j])).sum()
    within(product(Ball.exact(x), matrix, form), honest, exact)


OPERATIONS: dict[str, tuple[Callable[..., Ball], Callable[..., Any]]] = {
    "add": (add, lambda a, b: a + b),
    "mul": (mul, lambda a, b: a * b),
    "div": (div, lambda a, b: a / b),
}


@FORMS
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("seed", range(8))
def test_an_operation_on_numbers_near_their_centres_is_within(
    form: FloatFormat, name: str, seed: int
) -> None:
    rng = RNG(seed)
    ball_of, exactly = OPERATIONS[name]
    a, b = numbers(rng, form, 2, 12)
    b = np.where(b == 0.0, 1.0, b)
    wide = rng.choice([0.0, form.unit_roundoff, 0.3])
    rads = [wide * np.abs(a), wide * np.abs(b)]
    ball = ball_of(Ball(a, rads[0]), Ball(b, rads[1]), form)
    near = [c + r * rng.uniform(-1, 1, c.shape) for c, r in zip((a, b), rads, strict=True)]
    with np.errstate(all="ignore"):
        honest = stored(exactly(*near), form, rng)
        if name == "div" and rng.integers(2):  # a reciprocal, unless infinite, and the product
            turned = stored(1.0 / near[1], form, rng)
            by_product = stored(near[0] * turned, form, rng)
            honest = np.where(np.isfinite(turned), by_product, honest)
    within(ball, honest, exactly(fractions(a), fractions(b)))


@FORMS
def test_what_a_format_holds_is_exact_and_one_step_off_is_not(form: FloatFormat) -> None:
    x = np.array([[1.5, -2.0, 0.25, 0.0]])
    ball = product(Ball.exact(x), np.array([[2.0], [1.0], [4.0], [3.0]]), form)
    assert ball.mid.tolist() == [[2.0]]
    assert ball.rad.tolist() == [[0.0]]
    assert total(Ball.exact(x), form).rad.tolist() == [0.0]
    assert mul(Ball.exact(x), Ball.exact(x), form).rad.tolist() == [[0.0] * 4]
    longer = 1.0 + 2.0 * form.unit_roundoff
    assert mul(Ball.exact(longer), Ball.exact(longer), form).rad > 0
    many = np.full((1, 2**form.precision // 128 + 1), 128.0 + 1.0)
    assert total(Ball.exact(many), form).rad > 0


@FORMS
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0)])
def test_sums_of_nothing_are_exactly_0(form: FloatFormat, shape: tuple[int, ...]) -> None:
    rows, inner, columns = shape
    ball = product(Ball.exact(np.ones((rows, inner))), np.ones((inner, columns)), form)
    assert ball.mid.shape == (rows, columns)
    assert (ball.mid == (inner if inner else 0.0)).all()
    assert (ball.rad == 0.0).all()


@pytest.mark.parametrize("bits", [10, 11, 12])
def test_tf32_products_are_exact_while_operands_have_11_bits(bits: int) -> None:
    x, m = np.array([[2.0**bits - 1.0]]), np.ones((1, 1))
    ball = product(Ball.exact(x), m, FLOAT32, products="tf32")
    assert (ball.rad == 0.0).all() == (bits <= 11)
    assert product(Ball.exact(x), m, FLOAT32).rad == 0.0


@FORMS
def test_what_may_overflow_is_undecided_and_permits_infinities_and_nan(form: FloatFormat) -> None:
    large = Ball.exact([form.largest, -form.largest, 1.0])
    ball = add(large, large, form)
    assert ball.decided.tolist() == [False, False, True]
    assert ball.contains([np.inf, np.nan, 2.0]).tolist() == [True] * 3
    assert not total(large, form).decided, "partial sums of another order overflow"
    assert not mul(ball, Ball.exact(0.0), form).decided[0], "inf * 0 is NaN"
    assert product(ball[None, :], np.eye(3), form).decided.tolist() == [[False, False, False]]


@FORMS
def test_what_is_not_finite_is_undecided_and_stays_in_its_column(form: FloatFormat) -> None:
    matrix = np.eye(3)
    matrix[0, 1] = np.nan
    ball = product(Ball.exact(np.ones((2, 3))), matrix, form)
    assert ball.decided.tolist() == [[True, False, True]] * 2


def test_a_clamp_forgets_what_lies_beyond_it() -> None:
    ball = monotone(Ball(np.array([-3.0, 0.5, 9.0]), np.full(3, 1.0)), lambda x: np.clip(x, 0, 7))
    assert ball.mid.tolist() == [0.0, 0.5, 7.0]
    assert ball.rad.tolist() == [0.0, 1.0, 0.0]


def in_torch(name: str) -> Any:
    torch = pytest.importorskip("torch")
    return torch, getattr(torch, name)


SIGMOIDS: dict[str, Callable[[Any, Any], Any]] = {
    "torch": lambda torch, z: torch.sigmoid(z),
    "by exp": lambda torch, z: 1 / (1 + torch.exp(-z)),
    "by exp2": lambda torch, z: 1 / (1 + torch.exp2(-z.float() * 1.4426950408889634)).to(z.dtype),
    "float64": lambda torch, z: torch.sigmoid(z.double()).to(z.dtype),
}
SOFTMAXES: dict[str, Callable[[Any, Any], Any]] = {
    "torch": lambda torch, z: torch.softmax(z, -1),
    "by log": lambda torch, z: torch.log_softmax(z, -1).exp(),
    "by hand": lambda torch, z: (n := torch.exp(z - z.amax(-1, True))) / n.sum(-1, True),
    "by logsumexp": lambda torch, z: torch.exp(z - torch.logsumexp(z, -1, True)),
    "float64": lambda torch, z: torch.softmax(z.double(), -1).to(z.dtype),
}


@FORMS
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0, 120.0])
@pytest.mark.parametrize("name", SIGMOIDS)
def test_honest_sigmoids_are_within(form: FloatFormat, name: str, scale: float) -> None:
    torch, dtype = in_torch(form.name)
    z = form.round(RNG(7).standard_normal((4, 257)) * scale)
    honest = SIGMOIDS[name](torch, torch.tensor(z).to(dtype)).double().numpy()
    assert sigmoid(Ball.exact(z), form).contains(honest).all()


@FORMS
@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
@pytest.mark.parametrize("name", SOFTMAXES)
def test_honest_softmaxes_are_within(form: FloatFormat, name: str, scale: float) -> None:
    torch, dtype = in_torch(form.name)
    for width in (1, 8, 257):
        z = form.round(RNG(width).standard_normal((16, width)) * scale)
        honest = SOFTMAXES[name](torch, torch.tensor(z).to(dtype)).double().numpy()
        ball = softmax(Ball.exact(z), form)
        assert ball.contains(honest).all()
        assert (ball.rad <= 1.0 + 4 * underflow(form)).all()


@FORMS
def test_a_sigmoid_and_a_softmax_move_as_their_arguments_may(form: FloatFormat) -> None:
    rng = RNG(5)
    z, moved = 3.0 * rng.standard_normal((50, 9)), rng.uniform(0, 0.5, (50, 9))
    near = z + moved * rng.choice([-1.0, 1.0], z.shape)
    assert sigmoid(Ball(z, moved), form).contains(scores.sigmoid(near)).all()
    assert softmax(Ball(z, moved), form).contains(scores.softmax(near)).all()


def test_a_row_that_is_open_leaves_the_others_of_a_large_product_as_they_are() -> None:
    """Magnitudes of many numbers are summed in float32: no less than they are, row by row."""
    rng = np.random.default_rng(0)
    rows, matrix = rng.standard_normal((64, 128)), rng.standard_normal((128, 64))
    rad = np.zeros_like(rows)
    rad[3, 5] = np.inf
    found = product(Ball(rows, rad), matrix, FLOAT32)
    assert found.decided.all(axis=1).tolist() == [row != 3 for row in range(64)]
    small = product(Ball.exact(rows[:2]), matrix, FLOAT32)
    assert (found.rad[:2] >= small.rad).all()
    np.testing.assert_allclose(found.rad[:2], small.rad, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 512])
def test_a_sum_of_zeros_is_exact_however_many_are_made_at_once(count: int) -> None:
    rows = np.ones((16, 64))
    rows[3] = 0.0
    a, bias = Ball(np.ones((count, 64)), np.full((count, 64), 0.1)), Ball.exact(np.zeros(16))
    found = ball_sums.summed(a, Matrix(rows), start=bias)
    assert (found.rad[:, 3] == 0.0).all()
    assert (np.delete(found.rad, 3, axis=1) > 6.0).all()
