"""The floating-point formats, compared with the casts of torch and of NumPy."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from moe_routing.reference import FORMATS, FloatFormat
from moe_routing.reference.formats import INPUT_FORMATS

TORCH = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
NARROW = ("bfloat16", "float16")
NATIVE = {"float16": np.float16, "float32": np.float32, "float64": np.float64}


@pytest.fixture(params=sorted(FORMATS))
def fmt(request: pytest.FixtureRequest) -> FloatFormat:
    return FORMATS[request.param]


def cast(values: np.ndarray, name: str) -> np.ndarray:
    """What torch stores, as float64; from float32 where torch itself goes through float32."""
    source = values.astype(np.float32) if name in NARROW else values
    return torch.from_numpy(np.ascontiguousarray(source)).to(TORCH[name]).double().numpy()


def bits(values: np.ndarray) -> np.ndarray:
    """The bits of float64 values, so that -0.0 differs from 0.0, with one NaN for all."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def assert_rounds_like(fmt: FloatFormat, values: np.ndarray, expected: np.ndarray) -> None:
    got = fmt.round(values)
    wrong = np.flatnonzero(bits(got) != bits(expected))
    assert not wrong.size, (
        f"{fmt.name}.round({values[wrong[0]]!r})={got[wrong[0]]!r}, "
        f"but should be {expected[wrong[0]]!r} ({wrong.size} of {values.size} differ)"
    )


def every_scale(fmt: FloatFormat, seed: int) -> np.ndarray:
    """Float32 values of both signs from far below the subnormals to far above the largest."""
    rng = np.random.default_rng(seed)
    low = max(fmt.min_exponent - fmt.precision - 3, -149)
    exponents = rng.integers(low, min(fmt.max_exponent + 3, 128), size=20_000)
    significands = rng.uniform(1.0, 2.0, size=20_000) * rng.choice([-1.0, 1.0], size=20_000)
    with np.errstate(over="ignore"):
        return np.ldexp(significands, exponents).astype(np.float32).astype(np.float64)


def around(value: float, *, fine: bool) -> list[float]:
    """A value and both neighbours, in float64 steps or in those of float32."""
    kind = np.float64 if fine else np.float32
    center = kind(value)
    with np.errstate(over="ignore"):
        near = [float(np.nextafter(center, kind(to))) for to in (-np.inf, np.inf)]
    return [*near, float(center)]


def edges(fmt: FloatFormat, *, fine: bool) -> np.ndarray:
    """Halfway points, subnormals and overflow, each with its neighbours, both signs."""
    u, tiny, largest = fmt.unit_roundoff, fmt.tiny, fmt.largest
    subnormal = 2.0 * u * tiny
    halfway = [1 + (2 * n + 1) * u for n in range(8)] + [(2 - 3 * u), (2 - u)]
    small = [subnormal * step for step in (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)]
    small += [tiny * (1 - 2 * u), tiny * (1 - u), tiny, tiny * (1 + u)]
    overflow = largest * (1 + u / (2 - 2 * u))
    big = [largest, overflow] if fine or math.isfinite(np.float32(overflow)) else [largest]
    values = [v for center in halfway + small + big for v in around(center, fine=fine)]
    values += [0.0, math.inf, math.nan]
    return np.array(values + [-v for v in values])


@pytest.mark.parametrize("name", NARROW)
def test_round_agrees_with_torch_on_every_float32_scale(name: str) -> None:
    values = every_scale(FORMATS[name], seed=1)
    assert_rounds_like(FORMATS[name], values, cast(values, name))


@pytest.mark.parametrize("name", NARROW)
def test_round_agrees_with_torch_at_ties_subnormals_and_overflow(name: str) -> None:
    values = edges(FORMATS[name], fine=False)
    assert_rounds_like(FORMATS[name], values, cast(values, name))


@pytest.mark.parametrize("name", NARROW)
def test_round_keeps_every_16_bit_number(name: str) -> None:
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = patterns.view(TORCH[name]).double().numpy()
    assert_rounds_like(FORMATS[name], values, values)
    assert FORMATS[name].represents(values).all(), f"{name} must represent all of its numbers"


def test_round_to_float32_agrees_with_torch_on_every_float64_scale() -> None:
    rng = np.random.default_rng(2)
    exponents = rng.integers(-160, 132, size=20_000)
    values = np.ldexp(rng.uniform(-2.0, 2.0, size=20_000), exponents)
    assert_rounds_like(FORMATS["float32"], values, cast(values, "float32"))


def test_round_to_float32_agrees_with_torch_at_ties_subnormals_and_overflow() -> None:
    values = edges(FORMATS["float32"], fine=True)
    assert_rounds_like(FORMATS["float32"], values, cast(values, "float32"))


@pytest.mark.parametrize("name", ["float16", "float32"])
def test_round_goes_from_float64_in_one_step(name: str) -> None:
    """Just above a tie, a step through float32 would round down; NumPy's cast does not."""
    fmt = FORMATS[name]
    values = edges(fmt, fine=True)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(NATIVE[name]).astype(np.float64)
    assert_rounds_like(fmt, values, expected)


def test_round_agrees_with_exact_rational_arithmetic(fmt: FloatFormat) -> None:
    """Python's ``round`` of a fraction is exact, ties to even."""
    values = np.concatenate([every_scale(fmt, seed=5)[:300], edges(fmt, fine=True)])
    values = values[np.isfinite(values) & (np.abs(values) <= fmt.largest)]
    for value in values.tolist():
        exponent = max(math.frexp(value)[1] - 1, fmt.min_exponent)
        step = Fraction(2) ** (exponent - fmt.precision + 1)
        expected = float(round(Fraction(value) / step) * step)
        got = float(fmt.round(value))
        assert got == expected, f"{fmt.name}.round({value!r})={got!r}, but should be {expected!r}"


@pytest.mark.parametrize("precision", [2, 6, 8, 13])
def test_a_format_rounds_to_its_own_precision_whatever_its_name(precision: int) -> None:
    fmt = replace(FORMATS["bfloat16"], precision=precision)
    step = 2.0 ** (1 - precision)
    values = np.random.default_rng(7).uniform(1.0, 2.0, 1000)
    values = np.concatenate([values, 1.0 + step * np.arange(1, 2**precision // 2, 2) / 2])
    assert_rounds_like(fmt, values, np.rint(values / step) * step)
    assert_rounds_like(fmt, -values, np.rint(-values / step) * step)


def test_float64_is_its_own_rounding() -> None:
    smallest = 5e-324
    finfo = np.finfo(np.float64)
    values = np.array([smallest, finfo.tiny, 1 / 3, finfo.max, np.inf, np.nan, 0.0])
    values = np.concatenate([values, -values])
    assert_rounds_like(FORMATS["float64"], values, values)


@pytest.mark.parametrize("name", sorted(INPUT_FORMATS))
def test_halfway_values_go_to_the_even_neighbour(name: str) -> None:
    fmt = FORMATS[name]
    step = 2 * fmt.unit_roundoff
    halfway = np.array([1 + step / 2, 1 + 3 * step / 2, 1 + 5 * step / 2])
    assert fmt.round(halfway).tolist() == [1.0, 1 + 2 * step, 1 + 2 * step]
    assert fmt.round(-halfway).tolist() == [-1.0, -1 - 2 * step, -1 - 2 * step]


@pytest.mark.parametrize("name", sorted(INPUT_FORMATS))
def test_values_halfway_above_the_largest_overflow_to_infinity(name: str) -> None:
    fmt = FORMATS[name]
    halfway = fmt.largest + fmt.unit_roundoff * 2.0**fmt.max_exponent
    below = float(np.nextafter(halfway, 0.0))
    assert fmt.round([halfway, -halfway]).tolist() == [math.inf, -math.inf]
    assert fmt.round([below, -below]).tolist() == [fmt.largest, -fmt.largest]


def test_small_values_become_subnormals_and_never_flush(fmt: FloatFormat) -> None:
    smallest = 2 * fmt.unit_roundoff * fmt.tiny
    assert fmt.round([smallest, 3 * smallest]).tolist() == [smallest, 3 * smallest]
    assert fmt.represents([smallest, -smallest]).all(), "subnormal numbers are numbers"


def test_zero_keeps_its_sign_even_after_underflow(fmt: FloatFormat) -> None:
    signs = np.copysign(1.0, fmt.round([0.0, -0.0]))
    assert signs.tolist() == [1.0, -1.0]
    if fmt.name != "float64":
        vanished = fmt.round([1e-300, -1e-300])
        assert vanished.tolist() == [0.0, 0.0]
        assert np.copysign(1.0, vanished).tolist() == [1.0, -1.0]


def test_infinities_and_nan_survive_rounding_and_are_represented(fmt: FloatFormat) -> None:
    values = np.array([math.inf, -math.inf, math.nan])
    assert bits(fmt.round(values)).tolist() == bits(values).tolist()
    assert fmt.represents(values).all(), f"{fmt.name} holds infinities and NaN"


@pytest.mark.parametrize("name", sorted(INPUT_FORMATS))
def test_represents_says_which_values_a_cast_keeps(name: str) -> None:
    fmt = FORMATS[name]
    values = np.concatenate([every_scale(fmt, seed=3), edges(fmt, fine=name == "float32")])
    values = np.concatenate([values, cast(values, name)])
    kept = (cast(values, name) == values) | np.isnan(values)
    wrong = np.flatnonzero(fmt.represents(values) != kept)
    assert not wrong.size, f"{name}.represents({values[wrong[0]]!r}) must be {kept[wrong[0]]}"
    assert kept.any(), "the values must include some that the cast keeps"
    if name in NARROW:
        assert not kept.all(), "the values must include some that the cast changes"


def test_bfloat16_is_seen_in_the_bits_of_float32() -> None:
    fmt, rng = FORMATS["bfloat16"], np.random.default_rng(6)
    bits = rng.integers(0, 2**32, 4000, dtype=np.uint64).astype(np.uint32)
    bits[::2] &= np.uint32(0xFFFF0000)
    values = bits.view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaN among the bit patterns
        kept = fmt.represents(values.astype(np.float64))
    assert np.array_equal(fmt.represents(values), kept)
    assert np.array_equal(fmt.represents(values[::-3]), kept[::-3]), "in any memory layout"
    assert 0 < kept[1::2].sum() < kept[1::2].size, "NaN are kept, other odd bits are not"


@pytest.mark.parametrize("name", NARROW)
def test_all_are_held_where_each_is(name: str) -> None:
    fmt, rng = FORMATS[name], np.random.default_rng(7)
    bits = rng.integers(0, 2**32, 4000, dtype=np.uint64).astype(np.uint32)
    bits[::2] &= ~np.uint32(0x1FFF)
    bits[::4] &= ~np.uint32(0xFFFF)
    edge = np.ldexp(
        np.float32([1.0, 1.5, 1.0 + 2.0**-10]), [[-25], [-24], [-15], [-14], [15], [16]]
    )
    special = np.float32([0.0, -0.0, np.inf, np.nan])
    values = np.concatenate([bits.view(np.float32), np.float32(edge.ravel()), special])
    with np.errstate(invalid="ignore"):
        kept = fmt.represents(values)
    assert [fmt.holds(each) for each in values[:, None]] == kept.tolist()
    assert fmt.holds(values[kept][::-2])
    assert not fmt.holds(values)
    assert fmt.holds(values[:0])


def test_round_is_idempotent(fmt: FloatFormat) -> None:
    once = fmt.round(every_scale(fmt, seed=4))
    assert_rounds_like(fmt, once, once)


def test_round_keeps_the_shape_and_leaves_its_argument_alone(fmt: FloatFormat) -> None:
    values = np.full((2, 0, 3), 0.1)
    assert fmt.round(values).shape == values.shape
    assert fmt.represents(values).shape == values.shape
    argument = np.array([0.1, 1e-30])
    fmt.round(argument)
    assert argument.tolist() == [0.1, 1e-30]
    assert fmt.round(2).shape == (), "a number has no axis, and neither has its rounding"


def test_constants_are_those_of_torch(fmt: FloatFormat) -> None:
    finfo = torch.finfo(TORCH[fmt.name])
    assert fmt.unit_roundoff == finfo.eps / 2
    assert fmt.tiny == finfo.tiny == finfo.smallest_normal
    assert fmt.largest == finfo.max


def test_formats_are_listed_by_their_own_names() -> None:
    assert set(INPUT_FORMATS) == {"float32", "bfloat16", "float16"}
    assert set(FORMATS) == {*INPUT_FORMATS, "float64"}
    assert all(name == fmt.name for name, fmt in FORMATS.items())
