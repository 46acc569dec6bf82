"""The schema of the line protocol: what is written keeps to it, and what is refused does not."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from near_experts import ran
from near_layers import composed
from near_shards import spread
from routed import routes_of
from schemas import mistakes

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.files import load_case
from moe_routing.implementations import Limits, wire
from moe_routing.implementations.claims import CONFIG_AXES, INPUT_AXES
from moe_routing.implementations.wire_balance import balance_request
from moe_routing.implementations.wire_capacity import drop_request
from moe_routing.implementations.wire_experts import (
    expert_gradients_request,
    experts_request,
    read_expert_gradients,
    read_output,
    shard_request,
)
from moe_routing.implementations.wire_gradients import gradients_request
from moe_routing.implementations.wire_layer import layer_request, read_layer
from moe_routing.implementations.wire_padding import padded_request
from moe_routing.implementations.wire_permutation import LAYOUTS, permute_request
from moe_routing.implementations.wire_replay import replay_request
from moe_routing.reference import (
    EXPERT_GRADIENTS,
    GRADIENTS,
    BalanceConfig,
    BalanceInputs,
    CapacityConfig,
    Padding,
    PermutationConfig,
    Recorded,
)

DOCS = Path(__file__).parents[2] / "docs"
FILE = DOCS / "protocol.schema.json"
CORPUS = sorted((Path(__file__).parents[1] / "data" / "cases").glob("*.json"))

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="the docs are not here")


def mistakes_in(message: Any) -> list[str]:
    schema = json.loads(FILE.read_text())
    kinds = {name: each for name, each in schema["$defs"].items() if name in named(schema)}
    tried = [mistakes(message, each, schema) for each in kinds.values()]
    return [] if [] in tried else [each for found in tried for each in found]


def named(schema: dict[str, Any]) -> list[str]:
    return [each["$ref"].rpartition("/")[2] for each in schema["anyOf"]]


def test_the_lines_of_the_page_keep_to_it() -> None:
    lines = (DOCS / "protocol.md").read_text().splitlines()
    said = [json.loads(x[6:]) for x in lines if x.startswith(("    > ", "    < "))]
    assert [mistakes_in(each) for each in said] == [[]] * 26


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_request_keeps_to_it(path: Path) -> None:
    case, _ = load_case(path)
    if isinstance(case, Case):
        request = json.loads(
            wire.written({"id": 2, **wire.route_request(case.config, case.inputs)})
        )
        assert mistakes_in(request) == []


def test_it_has_every_axis_of_a_claim_and_the_version() -> None:
    defs = json.loads(FILE.read_text())["$defs"]
    assert {*defs["claim"]["properties"]} == {"name", *CONFIG_AXES, *INPUT_AXES}
    assert defs["hello_request"]["properties"]["protocol"]["const"] == wire.VERSION
    assert mistakes_in({"id": 1, **wire.hello_request("cuda")}) == []


CLAIMS = [
    {"score": ["sigmoid"], "scale": "any", "selection_bias": ["gate"]},
    {"groups": [None, {"top": [2], "fill": ["-inf"]}, {"top": "any", "fill": [0]}]},
    {"renormalize": [None, {"eps": 1e-20}], "logit_softcap": [True], "logits_dtype": ["input"]},
    {"renormalize": "any", "name": "mine"},
]


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_that_keep_to_it_can_be_read(claim: dict[str, Any]) -> None:
    hello = {"protocol": 1, "name": "mine", "capabilities": {"claims": [claim]}}
    assert mistakes_in({"id": 1, "hello": hello}) == []
    assert len(wire.read_hello({"hello": hello}).capabilities.claims) == 1


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"score": ["softmx"]}, "Expected Claim.score to list only 'softmax', 'sigmoid', "),
        ({"score": "softmax"}, 'score is "softmax", but should be a list: write ["softmax"]'),
        ({"score": "any"}, "Expected Claim.score to be a tuple of permitted values but got ANY"),
        ({"colour": ["red"]}, 'a claim has the unknown key "colour"; expected only name'),
        (
            {"groups": [{"best": [2]}]},
            'groups has the unknown key "best"; expected only top',
        ),
        ({"gate_bias": [3]}, "Expected Claim.gate_bias to list only False, True but got 3"),
        ({"scale": ["much"]}, 'scale has "much", but should have a number'),
        ([], "a claim is [], but should be a JSON object"),
    ],
)
def test_claims_that_do_not_are_refused_by_both(claim: Any, words: str) -> None:
    hello = {"protocol": 1, "name": "mine", "capabilities": {"claims": [claim]}}
    assert mistakes_in({"id": 1, "hello": hello})
    with pytest.raises(wire.ProtocolError) as error:
        wire.read_hello({"hello": hello})
    assert words in str(error.value)


def test_requests_to_permute_and_their_replies_keep_to_it() -> None:
    config = PermutationConfig(num_experts=3, align=2, empty_takes=2, order="free")
    request = permute_request(config, routes_of([[0, -1], [2, 1]]))
    assert mistakes_in(json.loads(wire.written({"id": 5, **request}))) == []
    defs = json.loads(FILE.read_text())["$defs"]
    for key, layout in LAYOUTS.items():
        told = defs[f"{key}_reply"]["properties"][key]
        assert {*told["properties"]} == {field.name for field in fields(layout)}
        assert told["required"] == [f.name for f in fields(layout) if f.default is MISSING]


def test_requests_to_drop_and_claims_of_it_keep_to_it() -> None:
    request = drop_request(CapacityConfig(num_experts=3), routes_of([[0, -1], [2, 1]]))
    assert mistakes_in(json.loads(wire.written({"id": 5, **request}))) == []
    claims = {"factor": "any", "order": ["weight"], "minimum": [0], "top_k": [2]}
    hello: dict[str, Any] = {"protocol": 1, "name": "mine", "methods": ["drop"]}
    hello["capabilities"] = {"drops": claims}
    assert mistakes_in({"id": 1, "hello": hello}) == []
    assert wire.read_hello({"hello": hello}).capabilities.drops.top_k == (2,)


def test_requests_for_balance_and_claims_of_it_keep_to_it() -> None:
    config, logits = BalanceConfig(num_experts=2), np.zeros((1, 1, 2), np.float32)
    ids, bias = np.zeros((1, 1, 1), np.int64), np.zeros((1, 2), np.float32)
    inputs = BalanceInputs(logits=logits, expert_ids=ids, valid=np.ones(1, np.int64), bias=bias)
    request = balance_request(config, inputs)
    assert mistakes_in(json.loads(wire.written({"id": 5, **request}))) == []
    hello: dict[str, Any] = {"protocol": 1, "name": "mine", "methods": ["balance"]}
    hello["capabilities"] = {"balances": {"of": ["counts"], "top_k": "any", "max_layers": 1}}
    assert mistakes_in({"id": 1, "hello": hello}) == []
    assert wire.read_hello({"hello": hello}).capabilities.balances.of == ("counts",)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_requests_for_gradients_keep_to_it(path: Path) -> None:
    case, _ = load_case(path)
    if isinstance(case, Case):
        cotangent = np.zeros((case.num_tokens, case.config.num_experts), np.float32)
        request = gradients_request(case.config, case.inputs, cotangent)
        assert mistakes_in(json.loads(wire.written({"id": 2, **request}))) == []


@pytest.mark.parametrize("layer", [0, None])
def test_requests_to_replay_keep_to_it(layer: int | None) -> None:
    case, _ = load_case(CORPUS[0])
    record = Recorded(
        expert_ids=np.zeros((2, 1, 3), np.int64),
        weights=np.ones((2, 1, 3), np.float32),
        rows=np.array([1, -1]),
        layer=layer,
    )
    request = replay_request(case.config, case.inputs, record)
    assert mistakes_in(json.loads(wire.written({"id": 2, **request}))) == []
    claims = {"weights": [False], "layers": [False, True], "same_bits": False}
    hello = {"protocol": 1, "name": "mine", "methods": ["replay"]}
    hello["capabilities"] = {"replays": claims}
    assert mistakes_in({"id": 1, "hello": hello}) == []
    assert wire.read_hello({"hello": hello}).capabilities.replays.weights == (False,)


@pytest.mark.parametrize("told", ["count", "valid", "padding"])
def test_requests_to_route_padded_batches_keep_to_it(told: Any) -> None:
    case, _ = load_case(CORPUS[0])
    request = padded_request(case.config, case.inputs, Padding(real=np.array([1, 1, 0]), told=told))
    assert mistakes_in(json.loads(wire.written({"id": 2, **request}))) == []
    hello = {"protocol": 1, "name": "mine", "methods": ["route_padded"]}
    hello["capabilities"] = {"pads": {"told": [told], "sentinel": "num-experts"}}
    assert mistakes_in({"id": 1, "hello": hello}) == []
    assert wire.read_hello({"hello": hello}).capabilities.pads.told == (told,)


def test_it_has_every_gradient() -> None:
    defs = json.loads(FILE.read_text())["$defs"]
    assert [*defs["gradients"]["properties"]] == [*GRADIENTS]


def test_requests_to_run_experts_and_their_replies_keep_to_it() -> None:
    case = ran([[0, -1], [2, 1]], drafted={"biased": True}, values="normal")
    request = experts_request(case.config, case.inputs)
    assert mistakes_in(json.loads(wire.written({"id": 5, **request}))) == []
    output = {"dtype": "float32", "shape": [1, 2], "values": [0.5, "nan"]}
    reply = {"id": 5, "experts": {"output": output}}
    assert mistakes_in(reply) == []
    assert read_output(reply).tolist()[0][0] == 0.5
    claims = {"activations": ["silu"], "biases": [False], "products": "tf32", "max_top_k": 4}
    hello = {"protocol": 1, "name": "mine", "methods": ["experts"]}
    hello["capabilities"] = {"computes": {**claims, "hidden_multiple_of": 8}}
    assert mistakes_in({"id": 1, "hello": hello}) == []
    assert wire.read_hello({"hello": hello}).capabilities.computes.hidden_multiple_of == 8


def test_limits_list_numbers_or_are_any() -> None:
    limits = {"max_groups": 8, "experts": [8, 16], "top_k": "any", "max_tokens": None}
    hello = {"protocol": 1, "name": "mine", "capabilities": {"limits": limits}}
    assert mistakes_in({"id": 1, "hello": hello}) == []
    assert wire.read_hello({"hello": hello}).capabilities.limits == Limits(
        max_groups=8, experts=(8, 16)
    )


def test_requests_to_run_a_rank_keep_to_it() -> None:
    case = spread()
    config, inputs, placement, rank = case.at(1).arguments(case.inputs)
    request = shard_request(config, inputs, placement, rank)
    assert mistakes_in(json.loads(wire.written({"id": 5, **request}))) == []
    hello = {"protocol": 1, "name": "mine", "methods": ["shard"]}
    hello["capabilities"] = {"shards": {"placements": "blocks", "max_ranks": 8}}
    assert mistakes_in({"id": 1, "hello": hello}) == []
    assert wire.read_hello({"hello": hello}).capabilities.shards.max_ranks == 8


def test_requests_for_gradients_of_experts_and_their_replies_keep_to_it() -> None:
    case = ran([[0, -1], [2, 1]], drafted={"biased": True}, values="normal")
    request = expert_gradients_request(case.config, case.inputs, case.inputs.hidden)
    assert mistakes_in(json.loads(wire.written({"id": 5, **request}))) == []
    defs = json.loads(FILE.read_text())["$defs"]
    told = defs["expert_gradients_reply"]["properties"]["expert_gradients"]
    assert [*told["properties"]] == [*EXPERT_GRADIENTS]
    reply = {
        "id": 5,
        "expert_gradients": {"weights": {"dtype": "float32", "shape": [1, 1], "values": [2]}},
    }
    assert mistakes_in(reply) == []
    assert read_expert_gradients(reply).weights.tolist() == [[2.0]]
    hello = {"protocol": 1, "name": "mine", "methods": ["expert_gradients"]}
    hello["capabilities"] = {"computes": {"gradients": ["hidden", "weights"]}}
    assert mistakes_in({"id": 1, "hello": hello}) == []
    assert wire.read_hello({"hello": hello}).capabilities.computes.gradients == (
        "hidden",
        "weights",
    )


def test_requests_to_run_layers_and_their_replies_keep_to_it() -> None:
    case = composed(gated=True, score="sigmoid", scale=2.5)
    request = layer_request(case.config, case.inputs)
    assert mistakes_in(json.loads(wire.written({"id": 5, **request}))) == []
    output = {"dtype": "float32", "shape": [1, 2], "values": [0.5, "nan"]}
    alone = {"id": 5, "layer": {"output": output}}
    weights = {"dtype": "float32", "shape": [1, 1], "values": [0.5]}
    ids = {"dtype": "int64", "shape": [1, 1], "values": [0]}
    routed = {**alone, "routing": {"weights": weights, "expert_ids": ids}}
    assert mistakes_in(alone) == mistakes_in(routed) == []
    assert read_layer(alone).routing is None
    assert read_layer(routed).routing.expert_ids.tolist() == [[0]]
    hello = {"protocol": 1, "name": "mine", "methods": ["layer"]}
    hello["capabilities"] = {"composes": {"shared": ["none", "plural"], "gated": [False]}}
    assert mistakes_in({"id": 1, "hello": hello}) == []
    claimed = wire.read_hello({"hello": hello}).capabilities.composes
    assert claimed.shared == ("none", "plural")
