"""Replay: recorded experts, slot by slot, with the weights that the pipeline has there."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from moe_routing.reference import (
    Groups,
    Recorded,
    Renormalize,
    RouterConfig,
    RouterInputs,
    from_megatron,
    from_sglang,
    from_vllm,
    replay,
    route,
    rows_of,
)

ROWS = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0], [-1.0, 0.75, 2.5, 0.25]]
INPUTS = RouterInputs.from_logits(ROWS)
SIGMOID = {"score": "sigmoid", "renormalize": Renormalize()}


def config(top_k: int = 2, **fields: Any) -> RouterConfig:
    return RouterConfig(num_experts=4, top_k=top_k, **fields)


def record(ids: Any, **fields: Any) -> Recorded:
    return Recorded(expert_ids=np.asarray(ids)[:, None], **fields)


def sigmoid(z: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-np.asarray(z)))


def test_its_own_choice_gives_its_own_answer() -> None:
    for each in (config(), config(**SIGMOID), config(3, scale=2.5)):
        free = route(each, INPUTS)
        again = replay(each, INPUTS, record(free.expert_ids))
        np.testing.assert_array_equal(again.expert_ids, free.expert_ids)
        np.testing.assert_array_equal(again.weights, free.weights)


def test_weights_are_those_of_the_recorded_experts_in_their_slots() -> None:
    found = replay(config(**SIGMOID), INPUTS, record([[2, 0], [3, 2], [0, 1]]))
    assert found.expert_ids.tolist() == [[2, 0], [3, 2], [0, 1]]
    held = sigmoid([-0.5, 1.0])
    np.testing.assert_allclose(found.weights[0], held / held.sum(), rtol=1e-12)


@pytest.mark.parametrize("weights_from", ["scores", "softmax_of_selected", "sigmoid_of_selected"])
def test_an_absent_route_weighs_nothing_and_is_in_no_norm(weights_from: Any) -> None:
    score = "softmax" if weights_from == "scores" else "identity"
    made = config(score=score, weights_from=weights_from, renormalize=Renormalize())
    found = replay(made, INPUTS, record([[-1, 0], [3, -1], [-1, -1]]))
    assert found.expert_ids.tolist() == [[-1, 0], [3, -1], [-1, -1]]
    np.testing.assert_allclose(found.weights, [[0, 1], [1, 0], [0, 0]], rtol=1e-12)


def test_a_repeated_expert_is_in_the_norm_once_a_slot() -> None:
    found = replay(config(**SIGMOID), INPUTS, record([[1, 1]] * 3))
    np.testing.assert_allclose(found.weights, 0.5, rtol=1e-12)


def test_neither_bias_nor_groups_nor_a_mask_nor_a_table_is_read() -> None:
    ids = [[2, 0], [3, 2], [0, 1]]
    plain = replay(config(score="sigmoid"), INPUTS, record(ids))
    biased = RouterInputs.from_logits(ROWS, selection_bias=[9.0, -9.0, 1.0, 0.0])
    halves = Groups(count=2, kept=1)
    masked = config(score="sigmoid", groups=halves, weights_from="masked_scores")
    table = {"expert_table": [[0, 1]], "token_ids": [0, 0, 0]}
    for each, given in (
        (masked, biased),
        (config(score="sigmoid"), RouterInputs.from_logits(ROWS, **table)),
    ):
        found = replay(each, given, record(ids))
        np.testing.assert_array_equal(found.weights, plain.weights)
        assert found.expert_ids.tolist() == ids


def test_recorded_weights_come_back_and_those_of_absent_routes_do_not() -> None:
    held = np.array([[[0.3, 7.0]], [[1.0, 2.0]], [[np.nan, 0.5]]], np.float32)
    found = replay(
        config(**SIGMOID, scale=3.0), INPUTS, record([[2, -1], [3, 2], [-1, 1]], weights=held)
    )
    assert found.weights.tolist() == [[np.float32(0.3), 0.0], [1.0, 2.0], [0.0, 0.5]]


def test_rows_say_which_token_has_which_row() -> None:
    ids = np.array([[2, 0], [3, 2], [2**40, 2**40], [0, 1]])
    found = replay(config(), INPUTS, record(ids, rows=[3, -1, 0]))
    assert found.expert_ids.tolist() == [[0, 1], [-1, -1], [2, 0]]
    assert not found.weights[1].any()


def test_a_layer_has_its_own_part_and_one_without_a_record_routes() -> None:
    ids = np.array([[[0, 1], [2, 3]]] * 3)
    one = replay(config(), INPUTS, Recorded(expert_ids=ids, layer=1))
    assert one.expert_ids.tolist() == [[2, 3]] * 3
    free = replay(config(), INPUTS, Recorded(expert_ids=ids, layer=None))
    np.testing.assert_array_equal(free.expert_ids, route(config(), INPUTS).expert_ids)


def test_without_rows_ids_are_a_view_in_the_strides_of_the_record() -> None:
    wide = np.zeros((3, 2, 5), np.int64)[:, :, :2]
    assert Recorded(expert_ids=wide).ids.strides == (80, 8)
    assert not Recorded(expert_ids=wide).expert_ids.flags.writeable


MISTAKES: dict[str, tuple[Any, str]] = {
    "a layer beyond": (
        lambda: record([[0, 1]], layer=1),
        "Expected layer < L=1 but got 1: layers are numbered as the record has them",
    ),
    "an id below -1": (
        lambda: record([[0, -2]]),
        "Cannot have expert_ids of -2 for token 0 in slot 1: use ids >= 0, or -1",
    ),
    "a row beyond": (
        lambda: record([[0, 1]], rows=[1]),
        r"Cannot have rows\[0\]=1: expected a row below N=1, or -1 for padding",
    ),
    "weights of another shape": (
        lambda: record([[0, 1]], weights=np.ones((1, 1, 3))),
        "Expected weights of shape",
    ),
    "another K": (
        lambda: replay(config(), INPUTS, record([[0]] * 3)),
        r"Expected expert_ids of shape \[N, L, 2\] for top_k=2 but got \(3, 1, 1\)",
    ),
    "another T": (
        lambda: replay(config(), INPUTS, record([[0, 1]])),
        "Expected a record of T=3 tokens but got 1: rows say which token has which row",
    ),
    "an id beyond": (
        lambda: replay(config(), INPUTS, record([[0, 4]] * 3)),
        "Cannot have expert_ids of 4 for token 0 in slot 1: use ids below num_experts=4",
    ),
    "ids of no layer": (
        lambda: record([[0, 1]], layer=None).ids,
        "Cannot have the routes of layer=None",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    make, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


class TestRecords:
    """What vLLM, sglang and Megatron return."""

    IDS = np.arange(12, dtype=np.int16).reshape(2, 3, 2)

    def test_of_vllm(self) -> None:
        found = from_vllm(self.IDS, layer=2)
        assert found.ids.tolist() == [[4, 5], [10, 11]]
        assert found.expert_ids.dtype == np.int64

    def test_of_sglang(self) -> None:
        text = base64.b64encode(self.IDS.astype("<i4").tobytes()).decode()
        found = from_sglang(text, num_layers=3, top_k=2, layer=1)
        assert found.ids.tolist() == [[2, 3], [8, 9]]

    def test_of_megatron(self) -> None:
        torch = pytest.importorskip("torch")
        layers = [torch.from_numpy(self.IDS[:, layer].astype(np.int64)) for layer in range(3)]
        assert from_megatron(layers, layer=1).ids.tolist() == [[2, 3], [8, 9]]

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: from_vllm([[0, 1]]), r"integers of shape \[tokens, layers, K\] but got shape"),
            (lambda: from_vllm(np.zeros((1, 1, 1))), "of dtype float64"),
            (lambda: from_sglang("?", num_layers=1, top_k=1), "to be base64 but got '\\?'"),
            (lambda: from_sglang("AAAAAA==", num_layers=1, top_k=2), "4 % 8 != 0"),
            (lambda: from_sglang("", num_layers=0, top_k=2), "Expected num_layers >= 1"),
            (
                lambda: from_megatron([np.zeros((1, 2), int), np.zeros((2, 2), int)]),
                r"for each layer but got shapes \[\(1, 2\), \(2, 2\)\]",
            ),
            (lambda: rows_of([1], [1, 2]), "Expected as many lengths as sequences, 1, but got 2"),
            (
                lambda: rows_of([1], [3], padded_to=2),
                "Expected lengths up to padded_to=2 but got 3",
            ),
        ],
    )
    def test_of_another_form_are_refused(self, make: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            make()

    def test_rows_of_packed_and_padded_batches(self) -> None:
        assert rows_of([2, 1], [3, 2]).tolist() == [0, 1, -1, 2, -1]
        assert rows_of([2, 1], [2, 1], padded_to=3).tolist() == [0, 1, -1, 2, -1, -1]
        assert rows_of([4], [2]).tolist() == [0, 1]
        assert rows_of([], []).tolist() == []
