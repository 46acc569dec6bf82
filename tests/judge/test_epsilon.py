"""Epsilon and floor under the judge: what torch does with them is right, anything else is not.

The tokens of each test have norms from far below the epsilon to far above it. An epsilon that
is missing, doubled or in the wrong place must be refused wherever it moves a weight by more
than the judge's own error, and accepted where rounding swallows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from weighing import DTYPES, PLAIN, WAYS, Array, divided, given, router, weighed

from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.conformance.judge.intervals import DIVISION, ELEMENTARY, ROUNDING
from moe_routing.conformance.judge.renormalize import guard
from moe_routing.conformance.judge.weights import sum_bounds
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, stages
from moe_routing.reference.formats import INPUT_FORMATS

torch = pytest.importorskip("torch")

GUARDS = [Renormalize(eps=1e-20), Renormalize(eps=1e-15), Renormalize(eps=1e-6)]
GUARDS += [Renormalize(floor=1e-12), Renormalize(eps=1e-6, floor=1e-5)]
Tensor = Any


def around(rule: Renormalize, top_k: int, dtype: str, score: str = "sigmoid") -> RouterInputs:
    """Tokens whose K best scores, equal or a factor of e apart, sum to 1e-5 .. 1e5 epsilons."""
    middle = np.log(max(rule.eps, rule.floor)) * (2 if score == "sqrtsoftplus" else 1)
    norms = np.minimum(middle + np.linspace(-11.5, 11.5, 47), -0.5)[:, None]
    steps = np.concatenate([np.zeros((47, 1)), -(np.arange(47) % 2)[:, None] * np.ones(top_k)], 1)
    logits = np.concatenate([norms + steps[:, :top_k], norms - 30.0], axis=1)
    return given(logits, dtype=dtype)


def permissive(top_k: int, rule: Renormalize | None, **axes: Any) -> RouterConfig:
    """A router that permits the dtype of its inputs at every stage."""
    dtypes = dict.fromkeys(("logits_dtype", "scores_dtype", "weights_dtype"), "input")
    return router(
        top_k + 1, top_k, axes.pop("score", "sigmoid"), renormalize=rule, **dtypes, **axes
    )


TORCH: dict[str, Callable[[Tensor, Renormalize], Tensor]] = {
    "in the dtype": lambda w, rule: w / (w.sum(-1, keepdim=True) + rule.eps).clamp(rule.floor),
    "a tensor of the dtype": lambda w, rule: (
        w
        / torch.maximum(w.sum(-1, keepdim=True) + w.new_tensor(rule.eps), w.new_tensor(rule.floor))
    ),
    "in float32": lambda w, rule: (
        w.float() / (w.float().sum(-1, keepdim=True) + rule.eps).clamp(rule.floor)
    ).to(w.dtype),
    "by a reciprocal": lambda w, rule: (
        w * (w.sum(-1, keepdim=True) + rule.eps).clamp(rule.floor).reciprocal()
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("score", ["sigmoid", "sqrtsoftplus"])
@pytest.mark.parametrize("rule", GUARDS, ids=str)
@pytest.mark.parametrize("top_k", [1, 2, 6])
def test_torch_is_right_wherever_it_adds_the_epsilon(
    dtype: str, score: str, rule: Renormalize, top_k: int
) -> None:
    config, inputs = permissive(top_k, rule, score=score), around(rule, top_k, dtype, score)
    bounds, ids = Bounds(config, inputs, PLAIN), stages(config, inputs).expert_ids
    logits = torch.tensor(np.take_along_axis(inputs.logits, ids, 1)).to(getattr(torch, dtype))
    scores = logits.sigmoid()
    if score == "sqrtsoftplus":
        scores = torch.nn.functional.softplus(logits).sqrt()
    answers = {name: way(scores, rule).double().numpy() for name, way in TORCH.items()}
    exact, form = scores.double().numpy(), INPUT_FORMATS[dtype]
    answers |= {f"by hand, {way}": divided(exact, rule, 1.0, form, way) for way in WAYS}
    with np.errstate(divide="ignore"):
        reciprocal = 1.0 / np.maximum(exact.sum(axis=1) + rule.eps, rule.floor)
    for name, weights in answers.items():
        verdict = judge(bounds, Answer(weights=weights, expert_ids=ids))
        wrong = ~verdict.weights.all(axis=1)
        if "quotient" not in name and dtype == "float16":
            wrong &= reciprocal < 0.9 * form.largest  # infinite weights are no rounding
        assert not wrong.any(), f"{name}: {weights[wrong][:1]} is refused of {exact[wrong][:1]}"


MUTANTS: dict[str, Callable[[Array, Array, float], Array]] = {
    "no epsilon": lambda w, norm, eps: norm,
    "an epsilon ten times too large": lambda w, norm, eps: norm + 10 * eps,
    "an epsilon of a tenth": lambda w, norm, eps: norm + eps / 10,
    "an epsilon for each expert": lambda w, norm, eps: norm + w.shape[1] * eps,
    "a floor for an epsilon": lambda w, norm, eps: np.maximum(norm, eps),
    "an epsilon only where the norm is 0": lambda w, norm, eps: np.where(norm > 0, norm, eps),
    "an epsilon only above K = 1": lambda w, norm, eps: norm + eps * (w.shape[1] > 1),
}


def derived_error(dtype: str, logits: Array, top_k: int) -> Array:
    """The most that K sigmoids and their quotient err by, relatively, each end and its margin."""
    u = INPUT_FORMATS[dtype].unit_roundoff
    sigmoid = u * (4 * np.abs(logits).max(axis=1) + ELEMENTARY + DIVISION + ROUNDING)
    return 2 * np.expm1(2 * sigmoid + (top_k + DIVISION + 2 * ROUNDING) * u)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", GUARDS[:3], ids=str)
@pytest.mark.parametrize("top_k", [1, 2, 6])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_epsilon_is_refused_wherever_it_shows(
    dtype: str, rule: Renormalize, top_k: int, mutant: str
) -> None:
    config, inputs = permissive(top_k, rule), around(rule, top_k, dtype)
    done, form = stages(config, inputs), INPUT_FORMATS[dtype]
    norm = done.gathered.sum(axis=1, keepdims=True)
    wrong = done.gathered / MUTANTS[mutant](done.gathered, norm, rule.eps)
    verdict = weighed(config, inputs, wrong, done.expert_ids)
    apart = np.abs(np.log(wrong / done.weights)).max(axis=1)
    selected = np.take_along_axis(inputs.logits, done.expert_ids, 1)
    shows = np.expm1(apart) > derived_error(dtype, selected, top_k)
    shows &= (done.gathered > 1.2 / form.largest).all(axis=1)  # below, exp(-z) may overflow
    passes = shows & verdict.weights.all(axis=1)
    assert not passes.any(), f"{mutant} passes at a norm of {norm[passes][:1]}"
    same = top_k == 1 if "each expert" in mutant else top_k > 1 and "above K = 1" in mutant
    if dtype == "float32":  # what shows in sixteen bits is counted below
        assert shows.any() == (not same), f"{mutant} shows for {shows.sum()} tokens"


@pytest.mark.parametrize(
    ("dtype", "eps", "least"),
    [
        ("float32", 1e-20, 40),
        ("bfloat16", 1e-20, 24),
        ("float32", 1e-6, 40),
        ("bfloat16", 1e-6, 30),
        ("float16", 1e-6, 34),
    ],
)
def test_a_missing_epsilon_is_refused_in_every_dtype_that_holds_it(
    dtype: str, eps: float, least: int
) -> None:
    rule = Renormalize(eps=eps)
    config, inputs = permissive(1, rule), around(rule, 1, dtype)
    wrong = ~weighed(config, inputs, np.ones((47, 1)), np.zeros((47, 1), dtype=np.int64)).weights
    assert wrong.sum() >= least, f"refused for {wrong.sum()} of 47 tokens"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", GUARDS[:3], ids=str)
def test_sums_are_short_of_the_scale_by_what_the_epsilon_takes(
    dtype: str, rule: Renormalize
) -> None:
    config, inputs = permissive(2, rule), around(rule, 2, dtype)
    bounds, ids = Bounds(config, inputs, PLAIN), stages(config, inputs).expert_ids
    assert bounds.score_format is bounds.weight_format is INPUT_FORMATS[dtype]
    found = sum_bounds(bounds, bounds.from_reference, ids)
    logits = torch.tensor(np.take_along_axis(inputs.logits, ids, 1)).to(getattr(torch, dtype))
    scores = logits.sigmoid()
    for name in ("in the dtype", "in float32"):
        sums = TORCH[name](scores, rule).double().numpy().sum(axis=1)
        wrong = found.decided & ~found.permitted.contains(sums)
        assert not wrong.any(), f"{name}: a sum of {sums[wrong][:1]} is refused"
    ones = found.permitted.contains(np.ones(47))
    if dtype == "float32":
        assert (found.decided & ~ones).sum() > 30, "a sum of 1 passes though eps takes a share"


@pytest.mark.parametrize("form", ["softmax", "logsumexp"])
def test_a_softmax_over_experts_that_are_hardly_selected_shows_its_epsilon(form: str) -> None:
    # a table selects the experts, so the norm of a softmax can be small
    table, rule = np.array([[1, 2]]), Renormalize(eps=1e-6)
    logits = np.stack([np.full(40, 9.0), 9 - np.linspace(2, 40, 40), 8.7 - np.linspace(2, 40, 40)])
    arrays = {"expert_table": table, "token_ids": np.zeros(40, dtype=np.int64)}
    inputs = given(logits.T, **arrays)
    config = router(3, 2, "softmax", renormalize=rule)
    z = torch.tensor(inputs.logits)
    norm = torch.logsumexp(z, dim=1, keepdim=True)
    scores = (torch.softmax(z, dim=1) if form == "softmax" else torch.exp(z - norm))[:, 1:]
    ids = np.repeat(table, 40, axis=0)
    for name, way in TORCH.items():
        assert weighed(config, inputs, way(scores, rule), ids).right, f"{form} {name} is refused"
    dropped = weighed(config, inputs, scores / scores.sum(1, keepdim=True), ids)
    assert (~dropped.weights).any(axis=1).sum() > 25, "a softmax without its epsilon passes"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_guard_is_what_its_format_makes_of_it_and_little_more(dtype: str) -> None:
    form = INPUT_FORMATS[dtype]
    for value in (1e-20, 1e-15, 1e-12, 1e-7, 1e-6, 1e-3, 0.1, 3.0):
        bound = guard(value, form)
        for stored in (value, form.round(value), float(np.float32(value))):
            assert bound.contains(stored), f"{value} stored as {stored} in {dtype}"
        least = form.tiny * 2.0 ** (1 - form.precision)
        slack = 1.01 * form.unit_roundoff * value + (least if dtype == "float16" else 2 * form.tiny)
        assert bound.hi - value <= slack, f"{value} may grow to {bound.hi} in {dtype}"
        assert value - bound.lo <= slack, f"{value} may shrink to {bound.lo} in {dtype}"
    assert guard(0.0, form).hi == 0.0, "no epsilon is no epsilon"
    assert (guard(1e-20, form).lo == 0.0) == (dtype == "float16"), "float16 alone loses 1e-20"
