"""Scores permitted in 16 bits: what eager torch makes of them is right, and little else is.

Every operation of these compositions stores its result in the dtype of the inputs, as eager
code does; inside an operation torch computes in float32. The bounds of the answers are stated
as numbers, so that no wrong step hides between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from weighing import PLAIN, Array, assert_right, given, random_logits, router, weighed

from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.conformance.judge.intervals import (
    ROUNDING,
    Interval,
    elementary,
    half_ulp,
    underflow,
)
from moe_routing.conformance.judge.narrow_softmax import narrow_softmax_bounds
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, stages
from moe_routing.reference.formats import INPUT_FORMATS

torch = pytest.importorskip("torch")

Tensor = Any
SIXTEEN = ("bfloat16", "float16")
NATIVE = dict.fromkeys(("logits_dtype", "scores_dtype", "weights_dtype"), "input")


def stepwise(x: Tensor) -> Tensor:
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def by_logarithm(x: Tensor) -> Tensor:
    most = x.amax(-1, keepdim=True)
    return (x - (most + (x - most).exp().sum(-1, keepdim=True).log())).exp()


SOFTMAXES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: torch.softmax(x, -1),
    "float32": lambda x: torch.softmax(x.float(), -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1).exp(),
    "logsumexp": lambda x: (x - torch.logsumexp(x, -1, keepdim=True)).exp(),
    "stepwise": stepwise,
    "by the logarithm of the norm": by_logarithm,
}

SIGMOIDS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "float32": lambda x: torch.sigmoid(x.float()),
    "stepwise": lambda x: 1 / (1 + (-x).exp()),
    "by a reciprocal": lambda x: (1 + (-x).exp()).reciprocal(),
    "exp(logsigmoid)": lambda x: torch.nn.functional.logsigmoid(x).exp(),
}

ROOTS: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": lambda x: torch.nn.functional.softplus(x).sqrt(),
    "float32": lambda x: torch.nn.functional.softplus(x.float()).sqrt(),
    "stepwise": lambda x: (x.clamp(min=0) + torch.log1p((-x.abs()).exp())).sqrt(),
}

FORMS = {"softmax": SOFTMAXES, "sigmoid": SIGMOIDS, "sqrtsoftplus": ROOTS}
RULES = (None, Renormalize(), Renormalize(eps=1e-20), Renormalize(eps=1e-6))


def hostile_logits(seed: int, experts: int = 16) -> Array:
    """Normal rows, rows far from 0, rows far apart, and rows of ties."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(40, experts)) * 2
    far = 20.0 * rng.choice([-1, 1], (40, 1)) + rng.normal(size=(40, experts)) / 4
    apart = -rng.exponential(3, (40, experts))
    return np.concatenate([normal, far, apart, np.round(normal[:20])])


def config_of(score: str, rule: Renormalize | None, top_k: int = 4, **axes: Any) -> RouterConfig:
    return router(16, top_k, score, renormalize=rule, **{**NATIVE, **axes})


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize(
    ("score", "form"), [(score, form) for score, forms in FORMS.items() for form in forms]
)
def test_eager_compositions_are_right_with_and_without_renormalisation(
    dtype: str, score: str, form: str
) -> None:
    for seed in range(3):
        inputs = given(hostile_logits(seed), dtype=dtype)
        x = torch.tensor(inputs.logits).to(getattr(torch, dtype))
        scores = FORMS[score][form](x)
        for rule in RULES:
            weights, ids = scores.topk(4, dim=-1)
            if rule is not None:
                weights = weights / (weights.sum(-1, keepdim=True) + rule.eps)
            verdict = weighed(config_of(score, rule), inputs, weights.double(), ids)
            assert_right(verdict, f"{form} {score} in {dtype} with {rule}")


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("form", SOFTMAXES)
def test_a_softmax_of_the_selected_is_a_renormalised_softmax(dtype: str, form: str) -> None:
    inputs = given(hostile_logits(7), dtype=dtype)
    values, ids = torch.tensor(inputs.logits).to(getattr(torch, dtype)).topk(4, dim=-1)
    weights = SOFTMAXES[form](values).double()
    assert_right(weighed(config_of("softmax", Renormalize()), inputs, weights, ids), form)
    selected = config_of("softmax", None, weights_from="softmax_of_selected")
    assert_right(weighed(selected, inputs, weights, ids), form)


def widest(config: RouterConfig, inputs: RouterInputs) -> float:
    """The largest relative error, in units of the inputs' dtype, of a weight of known logits."""
    done, form = stages(config, inputs), INPUT_FORMATS[inputs.dtype]
    answer = Answer(weights=done.weights, expert_ids=done.expert_ids, logits=done.logits)
    verdict = judge(Bounds(config, inputs, PLAIN), answer, logits="routed")
    permitted = verdict.weight_bounds.permitted
    shown = done.weights > 0.01
    off = np.maximum(permitted.hi / done.weights, done.weights / np.maximum(permitted.lo, 1e-300))
    return float((off[shown].max() - 1) / form.unit_roundoff)


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("level", [0.0, 20.0, -20.0])
def test_a_weight_in_sixteen_bits_errs_by_a_tenth_at_most(dtype: str, level: float) -> None:
    inputs = given(random_logits(60, 16) + level, dtype=dtype)
    # a norm's logarithm may be stored, one unit of its own size off
    units = widest(config_of("softmax", Renormalize()), inputs)
    assert units < 23 + abs(level), f"a renormalised weight may err by {units:.3g} u"
    units = widest(config_of("softmax", Renormalize(eps=1e-20)), inputs)
    assert units < 20, f"a weight renormalised with an epsilon may err by {units:.3g} u"
    units = widest(config_of("softmax", None, weights_from="softmax_of_selected"), inputs)
    assert units < 23 + abs(level), f"a softmax of the selected may err by {units:.3g} u"
    if level < 0:
        return  # a sigmoid of -20 underflows float16
    units = widest(config_of("sigmoid", None), inputs)
    assert units < 5.5, f"a sigmoid may err by {units:.3g} u"


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_wrong_scores_are_refused_in_sixteen_bits(dtype: str) -> None:
    inputs = given(random_logits(200, 16) + 10.0, dtype=dtype)
    x = torch.tensor(inputs.logits)
    bounds = Bounds(config_of("softmax", Renormalize()), inputs, PLAIN)
    for what, scores in (
        ("logits divided by 0.8", torch.softmax(x / 0.8, -1)),
        ("half a share spread evenly", torch.softmax(x, -1) + 0.5 / 16),
        ("sigmoids", torch.sigmoid(x - 10)),
    ):
        weights, ids = scores.topk(4, dim=-1)
        weights = (weights / weights.sum(-1, keepdim=True)).double().numpy()
        answer = Answer(weights=weights, expert_ids=ids.numpy(), logits=inputs.logits)
        refused = ~judge(bounds, answer, logits="routed").weights.all(axis=1)
        assert refused.mean() > 0.8, f"{what}: refused for {refused.mean():.0%} of the tokens only"


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_half_an_ulp_grows_with_the_value_from_nothing_at_0(dtype: str) -> None:
    form = INPUT_FORMATS[dtype]
    values = np.array([0.0, 2.0**-150, form.tiny, 0.01, 0.5, 1.0, 1.5, 40.0])
    errors = half_ulp(values, form)
    assert errors[0] == 0.0, "a store of 0 is exact"
    assert (np.diff(errors) >= 0.0).all()


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_the_greatest_logit_has_no_difference_to_store(dtype: str) -> None:
    form, zeros = INPUT_FORMATS[dtype], np.zeros((1, 4))
    top = narrow_softmax_bounds(Interval(zeros, zeros), form, selected=False).numerators.hi.max()
    # h(0) is 0; h(0 + log 4) is a unit, which stands for the store of the quotient
    units = np.log(top - 6.0 * underflow(form)) / np.log1p(form.unit_roundoff)
    assert units == pytest.approx(elementary(form) + ROUNDING, abs=0.01)
