"""The reference's balance: hand-worked numbers, gradients against differences, what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from moe_routing.reference import BalanceConfig, BalanceInputs, balance

RNG = np.random.default_rng(5)


def inputs(layers: int = 2, tokens: int = 6, experts: int = 4, **arrays: Any) -> BalanceInputs:
    logits = RNG.normal(size=(layers, tokens, experts)).astype(np.float32)
    ids = np.argsort(-logits, axis=2)[:, :, :2]
    plain: dict[str, Any] = {
        "logits": logits,
        "expert_ids": ids,
        "valid": np.ones(tokens, np.int64),
        "bias": np.zeros((layers, experts), np.float32),
    }
    return BalanceInputs(**{**plain, **arrays})


@pytest.mark.parametrize(("at_balance", "due"), [("one", 1.0), ("top_k", 2.0)])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_the_loss_of_a_perfect_balance(score: Any, at_balance: Any, due: float) -> None:
    ids = np.array([[[0, 1], [2, 3]]])
    even = inputs(1, 2, logits=np.zeros((1, 2, 4), np.float32), expert_ids=ids)
    config = BalanceConfig(num_experts=4, score=score, at_balance=at_balance)
    assert balance.aux_loss(config, even) == pytest.approx(due, rel=2**-40)


@pytest.mark.parametrize("over_layers", ["sum", "mean", "pooled"])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_the_gradient_is_that_of_the_loss(score: Any, over_layers: Any) -> None:
    given = inputs(valid=np.array([1, 1, 0, 1, 1, 1]))
    config = BalanceConfig(num_experts=4, score=score, over_layers=over_layers)
    toward = RNG.integers(-2, 3, given.logits.shape) / 1024
    sides = [
        balance.aux_loss(config, inputs(**{**vars(given), "logits": given.logits + side * toward}))
        for side in (np.float32(1), np.float32(-1))
    ]
    slope = float((balance.aux_gradient(config, given) * toward).sum())
    assert (sides[0] - sides[1]) / 2 == pytest.approx(slope, rel=1e-3)


def test_layers_are_added_averaged_or_pooled() -> None:
    given = inputs()
    each = [
        balance.aux_loss(BalanceConfig(num_experts=4), inputs(1, **_layer(given, layer)))
        for layer in (0, 1)
    ]
    added, mean = (
        balance.aux_loss(BalanceConfig(num_experts=4, over_layers=over), given)
        for over in ("sum", "mean")
    )
    assert added == pytest.approx(sum(each), rel=2**-40)
    assert mean == pytest.approx(sum(each) / 2, rel=2**-40)


def _layer(given: BalanceInputs, layer: int) -> dict[str, Any]:
    names = ("logits", "expert_ids", "bias")
    return {name: getattr(given, name)[layer : layer + 1] for name in names}


def test_counts_leave_padding_and_absent_routes_out() -> None:
    ids = np.array([[[0, 1], [0, -1], [2, 1]]])
    given = inputs(1, 3, expert_ids=ids, valid=np.array([1, 1, 0]))
    assert balance.expert_counts(given).tolist() == [[2, 1, 0, 0]]
    assert balance.expert_counts(given, "first").tolist() == [[2, 0, 0, 0]]


def test_the_z_loss_of_one_token() -> None:
    given = inputs(1, 1, 2, logits=np.float32([[[1, 0]]]), expert_ids=np.array([[[0, 1]]]))
    due = math.log(math.e + 1) ** 2
    assert balance.z_loss(BalanceConfig(num_experts=2), given) == pytest.approx(due, rel=2**-40)


@pytest.mark.parametrize(
    ("update", "mode", "step"),
    [
        ("sign", "train", [-0.5, 0.0, 0.5, 0.5]),
        ("centred", "train", [-0.625, -0.125, 0.375, 0.375]),
        ("sign", "recompute", [-0.5, 0.0, 0.5, 0.5]),
        ("sign", "eval", [0, 0, 0, 0]),
    ],
)
def test_the_update_of_the_bias(update: Any, mode: Any, step: list[float]) -> None:
    ids = np.array([[[0, 1], [0, 1], [0, 2], [0, 3]]])
    given = inputs(1, 4, expert_ids=ids, bias=np.ones((1, 4), np.float32))
    config = BalanceConfig(num_experts=4, update=update, mode=mode, rate=0.5)
    assert (balance.updated_bias(config, given) - 1).tolist() == [step]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"valid": np.array([1, 2, 0, 1, 1, 1])}, r"Cannot have valid\[1\]=2: 1 is a token"),
        ({"expert_ids": np.full((2, 6, 2), 4)}, r"Cannot have expert_ids\[0, 0, 0\]=4: ids are"),
        ({"bias": np.zeros((1, 4), np.float32)}, "Expected bias of shape"),
    ],
)
def test_bad_inputs_are_named(arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        inputs(**arrays)


def test_bad_fields_are_named() -> None:
    with pytest.raises(ValueError, match="Expected mode to be one of train, eval, recompute"):
        BalanceConfig(num_experts=2, mode="test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected rate >= 0"):
        BalanceConfig(num_experts=2, rate=-1.0)
