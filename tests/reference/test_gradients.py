"""The reference gradients: against fifty digits, on every axis, and at ids that nobody chose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from high_precision import differences

from moe_routing.reference import (
    Gradients,
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    gradients,
    stages,
)

T, H, E, K = 2, 3, 4, 2
RNG = np.random.default_rng(7)
HIDDEN, GATE, DELTA = (RNG.standard_normal(shape) for shape in ((T, H), (E, H), (E, H)))
COTANGENT = np.array([[1.0, -0.5, 2.0, 0.25], [-1.5, 3.0, 0.5, -2.0]], np.float32)
PLAIN = RouterConfig(num_experts=E, top_k=K)
EVERY_SCORE = [
    {"score": "softmax"},
    {"score": "sigmoid"},
    {"score": "sqrtsoftplus"},
    {"score": "identity", "weights_from": "softmax_of_selected"},
    {"score": "identity", "weights_from": "sigmoid_of_selected"},
]
NORMS = [
    None,
    Renormalize(),
    Renormalize(eps=0.25),
    Renormalize(floor=8.0),
    Renormalize(order=2.0),
    Renormalize(order=3.0, eps=0.5),
    Renormalize(order=0.5),
]
PARTS: list[dict[str, Any]] = [
    {"logit_softcap": 1.5},
    {"logit_multiplier": -0.5},
    {"logit_softcap": 0.75, "logit_multiplier": 2.0, "scale": 2.5},
    {"input_norm": RmsNorm(eps=0.25)},
    {"groups": Groups(count=2, kept=1, top=1, fill=0.0), "weights_from": "masked_scores"},
]


def made(**arrays: Any) -> RouterInputs:
    every = {"hidden": HIDDEN, "gate_weight": GATE, **arrays}
    exact = {name: np.asarray(each, np.float32) for name, each in every.items()}
    return RouterInputs(**exact)


def holds(config: RouterConfig, inputs: RouterInputs, ids: Any = None) -> Gradients:
    """Compare every gradient with central differences, and return them."""
    done = stages(config, inputs)
    ids = done.expert_ids if ids is None else np.asarray(ids)
    found = gradients(config, inputs, ids, COTANGENT)
    due = differences(config, inputs, ids, COTANGENT, done.kept)
    for name, each in due.items():
        np.testing.assert_allclose(getattr(found, name), each, rtol=1e-12, atol=1e-13)
    assert {*found.arrays()} == {*due} | ({"logits"} & {*found.arrays()})
    return found


@pytest.mark.parametrize("rule", NORMS, ids=str)
@pytest.mark.parametrize("axes", EVERY_SCORE, ids=lambda axes: str(axes))
def test_every_score_with_every_norm(axes: dict[str, Any], rule: Renormalize | None) -> None:
    holds(replace(PLAIN, **axes, renormalize=rule), made())


@pytest.mark.parametrize("axes", PARTS, ids=str)
def test_every_other_part_with_all_arrays(axes: dict[str, Any]) -> None:
    scale = {"hidden_scale": [0.5, 1.5, -1.0]} if "input_norm" in axes else {}
    inputs = made(gate_bias=[0.5, -1, 0.25, 2], gate_delta=DELTA, **scale)
    holds(replace(PLAIN, renormalize=Renormalize(eps=0.25), **axes), inputs)


def test_each_experts_scale() -> None:
    inputs = made(per_expert_scale=[0.5, -2.0, 1.25, 0.0])
    holds(replace(PLAIN, renormalize=Renormalize(), scale=1.5), inputs)


@pytest.mark.parametrize("axes", EVERY_SCORE, ids=str)
@pytest.mark.parametrize(
    "ids",
    [[[0, 1], [2, 3]], [[1, 1], [2, 2]], [[3, -1], [-1, 0]], [[-1, -1], [2, 1]]],
    ids=["anywhere", "twice the same", "absent", "all absent"],
)
def test_at_any_ids(axes: dict[str, Any], ids: Any) -> None:
    holds(replace(PLAIN, **axes), made(), ids)
    if ids[0] != [-1, -1]:
        holds(replace(PLAIN, **axes, renormalize=Renormalize()), made(), ids)


def test_an_absent_route_is_not_read_whatever_its_cotangent_is() -> None:
    ids, wild = np.array([[3, -1], [-1, 0]]), COTANGENT.copy()
    wild[:, 1:3] = np.nan
    for each in gradients(PLAIN, made(), ids, wild).arrays().values():
        assert np.isfinite(each).all()


def test_a_selection_bias_has_the_gradient_0() -> None:
    inputs = replace(made(), selection_bias=np.ones(E, np.float32))
    assert not gradients(PLAIN, inputs, [[0, 1], [2, 3]], COTANGENT).selection_bias.any()


def test_one_renormalised_expert_has_no_gradient_at_all() -> None:
    config = replace(PLAIN, top_k=1, renormalize=Renormalize())
    assert np.abs(gradients(config, made(), [[1], [2]], COTANGENT).logits).max() < 1e-16


def test_no_token_has_gradients_of_nothing_and_zeros() -> None:
    inputs = replace(made(), hidden=np.zeros((0, H), np.float32))
    found = gradients(PLAIN, inputs, np.zeros((0, K), np.int64), np.zeros((0, E)))
    assert found.logits.shape == (0, E)
    assert not found.gate_weight.any()


@pytest.mark.parametrize(
    ("ids", "cotangent", "words"),
    [
        ([[0, 4], [1, 2]], COTANGENT, "Expected expert_ids in [0, 4), or -1 where"),
        ([[0, -2], [1, 2]], COTANGENT, "but got values from -2 to 2"),
        ([[0, 1]], COTANGENT, "Expected expert_ids of shape [T, K] with T=2"),
        ([[0, 1], [1, 2]], COTANGENT[:, :2], "Expected cotangent of shape [T, E]"),
    ],
)
def test_what_does_not_fit_is_refused(ids: Any, cotangent: Any, words: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - read below
        gradients(PLAIN, made(), ids, cotangent)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
