"""The judge of balance: answers as they are read, balls of a few ulps, stories with ratios."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from near_balances import balanced

from moe_routing.conformance.explain.balance import balance_failure, exact_failure
from moe_routing.conformance.trial.balance import owed_of, read
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.implementations import Balance
from moe_routing.reference import balance


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", ["aux_loss", "aux_gradient", "z_loss", "bias"])
def test_the_reference_is_right_a_few_ulps_are_and_a_thousandth_is_not(
    name: str, score: Any
) -> None:
    case = balanced(layers=2, score=score, valid=(1, 1, 0, 1), update="centred", rate=0.001)
    owed = owed_of(case)
    made = getattr(balance, "updated_bias" if name == "bias" else name)(case.config, case.inputs)
    found = np.asarray(made, np.float64)
    for off, right in ((1.0, True), (1 + 2.0**-23, True), (1 + 2.0**-8, False)):
        failure = balance_failure("x", owed, name, found * off)
        assert (failure is None) == right, f"{name} * {off}: {failure}"


def test_what_float32_holds_is_exact() -> None:
    owed = owed_of(balanced(rate=0.5))
    assert (owed.bias.rad == 0).all()
    assert (owed_of(balanced(rate=0.001)).bias.rad > 0).all()
    assert (owed_of(balanced(rate=0.001, mode="eval")).bias.rad == 0).all()


def test_a_story_names_the_place_the_counts_and_the_ratio() -> None:
    owed = owed_of(balanced())
    failure = balance_failure("aux-loss", owed, "aux_loss", owed.aux_loss.mid.reshape(()) * 2)
    assert failure is not None
    assert failure.summary.startswith("aux_loss is ")
    assert failure.details[1] == f"layer 0   due counts {owed.counts[0].tolist()}"
    assert failure.details[2] == "ratio     answered over due is 2: K"
    failure = exact_failure(
        "counts", owed, "counts", owed.counts + np.array([0, 1, 0, 0]), owed.counts
    )
    assert failure is not None
    assert failure.summary.startswith("counts[0, 1] is ")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (None, "balance returned None, but should return Balance"),
        (
            Balance(counts=np.zeros((1, 3), int)),
            r"counts has shape \(1, 3\), but should be \(1, 4\)",
        ),
        (Balance(aux_loss=np.zeros(1)), r"aux_loss has shape \(1,\), but should be \(\)"),
        (Balance(bias=np.zeros((1, 4), int)), "bias is of dtype int64, but should hold numbers"),
    ],
)
def test_another_form_is_malformed(raw: Any, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        read(raw, balanced())


def test_parts_that_are_none_are_not_there() -> None:
    assert read(Balance(aux_loss=1.5), balanced()) == {"aux_loss": 1.5}
