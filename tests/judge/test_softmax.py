"""Softmax bounds against exact arithmetic, and what competes in selection."""

from __future__ import annotations

import numpy as np
import pytest
from score_forms import (
    SOFTMAXES,
    SPREADS,
    Array,
    spread_rows,
    true_softmax,
)

from moe_routing.conformance.judge import Interval, may_select
from moe_routing.conformance.judge.scores import (
    competing_bounds,
    score_bounds,
)
from moe_routing.conformance.judge.softmax import softmax_bounds
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, FloatFormat

torch = pytest.importorskip("torch")

PLAIN = Numerics()
U = FLOAT32.unit_roundoff


@pytest.mark.parametrize("form", SOFTMAXES)
@pytest.mark.parametrize(("width", "shift", "experts"), SPREADS)
def test_honest_softmaxes_have_the_numerators_that_the_judge_permits(
    form: str, width: float, shift: float, experts: int
) -> None:
    z = spread_rows(int(width), shift, experts)
    bound = softmax_bounds(Interval.point(z.astype(np.float64)), FLOAT32)
    got = SOFTMAXES[form](z).astype(np.float64)
    # one common denominator must explain the row
    least = (got / np.maximum(bound.numerators.hi, 1e-300)).max(axis=1)
    most = (got / np.maximum(bound.numerators.lo, 1e-300)).min(axis=1)
    assert (least <= most).all(), (
        f"{form}: no denominator explains row {int(np.argmax(least > most))}"
    )


@pytest.mark.parametrize("form", SOFTMAXES)
def test_honest_softmaxes_are_within_the_bounds_of_their_quotients(form: str) -> None:
    for width, shift, experts in SPREADS:
        z = spread_rows(int(width), shift, experts)
        bound = softmax_bounds(Interval.point(z.astype(np.float64)), FLOAT32).scores
        truth = true_softmax(z)
        assert bound.contains(truth).all(), "the true softmax is refused"
        got = SOFTMAXES[form](z).astype(np.float64)
        if not bound.contains(got).all():
            t, e = np.argwhere(~bound.contains(got))[0]
            pytest.fail(
                f"{form}: softmax({z[t].tolist()})[{e}]={got[t, e]!r}, but should be in "
                f"[{bound.lo[t, e]!r}, {bound.hi[t, e]!r}], {experts} experts"
            )


def test_a_softmax_of_far_apart_logits_errs_by_more_than_a_few_roundings() -> None:
    z = spread_rows(80, 40.0, 8)
    for form in ("torch", "exp2"):
        errors = np.abs(SOFTMAXES[form](z) / true_softmax(z) - 1) / U
        assert errors.max() > 30, f"{form} errs by {errors.max():.3g} u only: nothing to permit"


def test_a_softmax_bound_is_tight_enough_to_refuse_single_wrong_steps() -> None:
    z = spread_rows(4, 2.0, 8)
    bound = softmax_bounds(Interval.point(z.astype(np.float64)), FLOAT32).scores
    truth = true_softmax(z)
    halves = torch.softmax(torch.tensor(z).bfloat16(), dim=1).double().numpy()
    for what, wrong in (
        ("softmax of bfloat16", halves),
        ("a softmax 1e-5 too large", truth * (1 + 1e-5)),
        ("a softmax without its last expert", truth / (1 - truth[:, -1:])),
    ):
        accepted = bound.contains(wrong).mean()
        assert accepted < 0.05, f"{what} is accepted for {accepted:.0%} of its entries"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_softmax_stored_in_sixteen_bits_at_every_step_is_within_its_bounds(dtype: str) -> None:
    form = INPUT_FORMATS[dtype]
    for width, shift, experts in SPREADS:
        z = form.round(spread_rows(int(width), shift, experts))
        bound = softmax_bounds(Interval.point(z), form).scores
        e = form.round(np.exp(form.round(z - z.max(axis=1, keepdims=True))))
        for total in (form.round(e.sum(axis=1, keepdims=True)), tree_sum(e, form)):
            for got in (form.round(e / total), form.round(e * form.round(1 / total))):
                assert bound.contains(got).all(), f"{dtype} softmax of {experts} experts"


def tree_sum(e: Array, form: FloatFormat) -> Array:
    """Sum rows ``[T, E]``, E a power of two, in halves that are each stored."""
    while e.shape[1] > 1:
        half = e.shape[1] // 2
        e = form.round(e[:, :half] + e[:, half:])
    return e


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_softmax_over_many_experts_in_sixteen_bits_misses_none_of_them(dtype: str) -> None:
    # counted as one addition after another, 256 roundings of bfloat16 hide half of the total
    form = INPUT_FORMATS[dtype]
    z = form.round(np.random.default_rng(14).normal(size=(20, 256)))
    bound = softmax_bounds(Interval.point(z), form).scores
    whole = torch.softmax(torch.tensor(z).to(getattr(torch, dtype)), dim=1).double().numpy()
    assert bound.contains(whole).all(), "torch's own softmax"
    for missing in (128, 85):
        lost = np.exp(z) / np.exp(z[:, missing:]).sum(axis=1, keepdims=True)
        assert not bound.contains(lost).any(), f"a total without {missing} of the experts"


def test_minus_infinity_scores_zero_and_rows_of_it_raise_nothing() -> None:
    z = np.array([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, -np.inf]])
    bound = softmax_bounds(Interval.point(z), FLOAT32)
    assert bound.scores.hi[0, 1] == bound.numerators.hi[0, 1] == 0.0, "exp(-inf) is exactly 0"
    assert (bound.scores.lo[1] == 0).all(), "a row of -inf has no lower bound"
    assert (bound.scores.hi[1] >= 1).all(), "a row of -inf has no upper bound"


# --- what competes --------------------------------------------------------------------------


def test_a_huge_logit_in_sixteen_bits_leaves_a_lost_expert_at_zero() -> None:
    form = INPUT_FORMATS["bfloat16"]  # 2**-9 of 262,144 is beyond every exponential
    bounds = softmax_bounds(Interval.point([[-np.inf, 262144.0]]), form)
    assert bounds.scores.lo[0, 0] == bounds.scores.hi[0, 0] == 0.0, "0 times a large factor is 0"
    assert bounds.scores.contains(np.array([[0.0, 1.0]])).all(), "the only expert has it all"
    assert not np.isnan(bounds.denominator.hi).any(), "a bound is no number"


def competing(z: Array, numerics: Numerics = PLAIN, bias: Array | None = None) -> Interval:
    score = "softmax" if bias is None else "sigmoid"
    config = RouterConfig(num_experts=z.shape[1], top_k=1, score=score)
    scores = score_bounds(config, Interval.point(z.astype(np.float64)), FLOAT32, numerics)
    return competing_bounds(scores, bias, FLOAT32, numerics)


def top_mask(values: Array, top_k: int) -> Array:
    chosen = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-values, axis=1)[:, :top_k], True, axis=1)
    return chosen


def test_an_expert_index_packed_into_the_score_is_right_only_where_declared() -> None:
    # nine index bits at E = 512 leave fifteen significand bits to compare
    rng = np.random.default_rng(6)
    steps = rng.random((200, 700)).argsort(axis=1)[:, :512]
    z = (2.0 + steps * 2.0**-17).astype(np.float32)
    bits = torch.softmax(torch.tensor(z), dim=1).numpy().view(np.uint32)
    packed = (bits & np.uint32(0xFFFFFE00)) | np.arange(512, dtype=np.uint32)
    chosen = top_mask(packed.astype(np.float64), 8)
    declared = may_select(competing(z, Numerics(select_bits=15)), chosen, None, FLOAT32)
    assert declared.all(), f"declared, but refused for {(~declared).sum()} of 200 tokens"
    refused = ~may_select(competing(z), chosen, None, FLOAT32)
    assert refused.mean() > 0.5, f"undeclared, and refused for only {refused.sum()} of 200"
    honest = top_mask(bits.astype(np.float64), 8)
    assert may_select(competing(z), honest, None, FLOAT32).all(), "unpacked scores are refused"


def test_a_bias_of_zeros_hides_no_more_than_none() -> None:
    z = np.full((1, 512), 1.0)
    z[0, 1] += 2.0**-18
    for bias in (None, np.zeros(512, np.float32), np.full(512, 7.0, np.float32)):
        bounds = softmax_bounds(Interval.point(z), FLOAT32)
        bound = competing_bounds(bounds, bias, FLOAT32, PLAIN)
        said = may_select(bound, np.arange(512)[None] == 0, None, FLOAT32)
        assert said.all() == (bias is not None and bias.any()), f"the lesser one with {bias}"


def test_quotients_would_hide_what_the_numerators_show() -> None:
    # the denominator's own (E + c) roundings are common to the row and must not be slack
    z = np.full((1, 512), 1.0)
    z[0, 1] += 2.0**-18
    chosen = np.arange(512)[None] == 0
    point = softmax_bounds(Interval.point(z), FLOAT32)
    assert not may_select(point.numerators, chosen, None, FLOAT32).any(), "the lesser one wins"
    assert may_select(point.scores, chosen, None, FLOAT32).all(), "quotients hide nothing here"


@pytest.mark.parametrize("offset", [0.0, 7.0, 34.5])
def test_the_sum_with_the_selection_bias_is_one_float32_rounding(offset: float) -> None:
    rng = np.random.default_rng(7)
    z = rng.normal(size=(300, 64)).astype(np.float32)
    bias = (offset + rng.normal(size=64) * 2.0**-10).astype(np.float32)
    scores = torch.sigmoid(torch.tensor(z)).numpy()
    bound = competing(z, bias=bias)
    assert bound.contains((scores + bias).astype(np.float64)).all(), "an honest float32 sum"
    assert bound.contains(scores.astype(np.float64) + bias).all(), "a sum in float64"
    rounded = torch.tensor(bias).bfloat16().float().numpy()
    right = may_select(bound, top_mask(scores + bias, 8), None, FLOAT32)
    wrong = may_select(bound, top_mask(scores + rounded, 8), None, FLOAT32)
    assert right.all(), "an honest selection is refused"
    assert offset == 0.0 or (~wrong).mean() > 0.01, "a bias rounded to bfloat16 is never refused"
