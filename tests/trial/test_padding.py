"""Padded batches: tokens are judged as a batch of their own, padding exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from near_padding import padded

from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.trial.padding import PaddingTrial
from moe_routing.implementations import Capabilities, Pads, RoutingMap, Unsupported, load_adapter
from moe_routing.reference import route_padded


class Padder:
    """The reference, whose answer is changed."""

    name = "padder"

    def __init__(self, change: Any = lambda answer: answer, **pads: Any) -> None:
        self._change, self._pads = change, Pads(**pads)

    def capabilities(self) -> Capabilities:
        return Capabilities(pads=self._pads)

    def route_padded(self, config: Any, inputs: Any, padding: Any) -> Any:
        return self._change(route_padded(config, inputs, padding, self._pads.sentinel))


def summary(clause: str, adapter: Any, case: Any) -> str:
    failure = CLAUSES[f"padding.{clause}"].check(PaddingTrial(adapter, case))
    return "" if failure is None else failure.summary


def test_what_is_wrong_is_told_by_its_place_in_the_batch() -> None:
    def changed(answer: Any) -> Any:
        answer.weights[2, 1] *= 1.001
        return answer

    words = summary("tokens", Padder(changed), padded((1, 0, 1)))
    assert words.startswith("weights[1, 1]="), words
    failure = CLAUSES["padding.tokens"].check(PaddingTrial(Padder(changed), padded((1, 0, 1))))
    assert failure.token == 2
    assert "place     token 1 of the tokens without padding, 2 of the batch" in failure.details


def test_the_sentinel_is_the_claimed_one() -> None:
    case = padded((1, 1, 0))
    assert summary("inert", Padder(sentinel="num-experts"), case) == ""
    wrong = Padder(lambda answer: route_padded_with_e(answer), sentinel="minus-one")
    words = "expert_ids[2, 0]=4, but token 2 is padding, and no expert is -1 here"
    assert summary("inert", wrong, case) == words


def route_padded_with_e(answer: Any) -> Any:
    answer.expert_ids[answer.expert_ids < 0] = 4
    return answer


@pytest.mark.parametrize(("stray", "words"), [(0.0, ""), (0.5, "weights[2, 0]=0.5, but token 2")])
def test_in_a_map_padding_has_no_expert_and_no_weight(stray: float, words: str) -> None:
    def as_map(answer: Any) -> RoutingMap:
        probs, marked = np.full((3, 4), 0.0), np.zeros((3, 4), bool)
        for t in range(2):
            probs[t, answer.expert_ids[t]] = answer.weights[t]
            marked[t, answer.expert_ids[t]] = True
        probs[2, 3] = stray
        return RoutingMap(probs=probs, routing_map=marked)

    assert summary("inert", Padder(as_map), padded((1, 1, 0))).startswith(words)
    assert summary("tokens", Padder(as_map), padded((1, 1, 0))) == ""


def test_a_way_that_is_not_claimed_is_refused() -> None:
    padding = padded((1, 1, 0)).inputs.padding
    with pytest.raises(Unsupported, match=r"not claimed: pads\.told='valid'"):
        Pads(told=("count",)).require(padding)
    with pytest.raises(ValueError, match=r"Expected Pads\.sentinel to be one of minus-one"):
        Pads(sentinel="-1")


@pytest.mark.parametrize("name", ["torch", "reference"])
@pytest.mark.parametrize("told", ["count", "valid", "padding"])
def test_shipped_routers_leave_padding_of_nan_out(name: str, told: str) -> None:
    pytest.importorskip("torch")
    trial = PaddingTrial(load_adapter(name), padded((1, 1, 0), told, "nan"))
    assert CLAUSES["padding.not-finite"].check(trial) is None
