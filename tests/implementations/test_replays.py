"""Replay on real code: Megatron's own, and torch routers whose top k is answered with a record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Plan, load_known, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.implementations import (
    FORCED,
    Capabilities,
    Replays,
    Unsupported,
    load_adapter,
    shipped_known,
    torch_replay,
)
from moe_routing.implementations.protocol import offers
from moe_routing.implementations.transformers.table import ROWS as TABLE
from moe_routing.reference import Recorded, RouterConfig, RouterInputs, Routing

torch = pytest.importorskip("torch")

INPUTS = RouterInputs.from_logits([[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]])
RECORD = Recorded(expert_ids=np.array([[[2, 1]], [[3, 0]]]))
SOME = ("forced", "rows", "layers", "own-record", "strided")


def statuses(name: str, *clauses: str, draws: int = 2) -> dict[str, str]:
    known = [entry for path in shipped_known() for entry in load_known(path)]
    found = {}
    for clause in select_clauses([f"replay.{each}" for each in clauses]):
        plan = Plan(clauses=[clause], max_examples=draws, known=known)
        found[clause.id] = check_clause(load_adapter(name), clause, plan).status
    return found


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("torch", "torch"),
        ("megatron-core", "megatron"),
        ("torchtitan", "torchtitan"),
        ("transformers:mixtral", "transformers"),
        ("transformers:deepseek_v3", "transformers"),
        ("transformers:gpt_oss", "transformers"),
    ],
)
def test_a_real_router_replays_or_is_known(name: str, package: str) -> None:
    pytest.importorskip(package)
    found = statuses(name, *SOME)
    assert set(found.values()) <= {"pass", "known"}, found


def test_megatron_restores_the_instances_that_were_there() -> None:
    pytest.importorskip("megatron")
    from megatron.core.transformer.moe.router_replay import RouterReplay

    before = RouterReplay()
    adapter = load_adapter("megatron-core")
    config = RouterConfig(num_experts=4, top_k=2)
    answer = adapter.replay(config, INPUTS, RECORD)
    assert answer.routing_map.nonzero()[:, 1].tolist() == [1, 2, 0, 3]
    assert RouterReplay.global_router_replay_instances == [before]
    RouterReplay.clear_global_router_replay_instances()


def test_rows_of_transformers_without_a_top_k_have_no_replay() -> None:
    pytest.importorskip("transformers")
    lacking = [name for name, row in TABLE.items() if row.replays is None]
    assert lacking == ["switch_transformers", "deepseek_v4_hash"]
    for name in lacking:
        assert not offers(load_adapter(f"transformers:{name}"), "replay")


class ByTopk:
    """A router in torch that takes its experts as ``choose`` does."""

    name = "by-topk"

    def __init__(self, choose: Any) -> None:
        self._choose = choose

    def capabilities(self) -> Capabilities:
        return Capabilities(replays=FORCED)

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        scores = torch.from_numpy(np.array(inputs.logits)).softmax(-1)
        weights, ids = self._choose(scores, config.top_k)
        return Routing(weights=weights, expert_ids=ids)

    replay = torch_replay


@pytest.mark.parametrize(
    "choose",
    [
        lambda scores, k: scores.topk(k),
        lambda scores, k: torch.topk(scores, k, dim=1, sorted=False),
        lambda scores, k: tuple(x[0] for x in torch.topk(scores[None], k=k, dim=-1)),
    ],
    ids=["method", "function", "of a sequence"],
)
def test_a_top_k_is_answered_with_the_record(choose: Any) -> None:
    adapter, config = ByTopk(choose), RouterConfig(num_experts=4, top_k=2)
    answer = adapter.replay(config, INPUTS, RECORD)
    assert answer.expert_ids.tolist() == [[2, 1], [3, 0]]
    scores = torch.from_numpy(np.array(INPUTS.logits)).softmax(-1)
    assert answer.weights.equal(scores.gather(1, answer.expert_ids))
    assert adapter.route(config, INPUTS).expert_ids.tolist() == [[3, 0], [1, 2]]


def test_a_router_without_a_top_k_says_that_nothing_was_replayed() -> None:
    adapter = ByTopk(lambda scores, k: (scores.sort().values[:, -k:], scores.argsort()[:, -k:]))
    with pytest.raises(RuntimeError, match="by-topk took no topk of 2 among 4 experts: nothing"):
        adapter.replay(RouterConfig(num_experts=4, top_k=2), INPUTS, RECORD)


def test_what_it_cannot_force_is_refused() -> None:
    adapter, config = ByTopk(lambda scores, k: scores.topk(k)), RouterConfig(num_experts=4, top_k=2)
    absent = Recorded(expert_ids=np.array([[[2, -1]], [[3, 0]]]))
    with pytest.raises(Unsupported, match=r"not claimed: replays\.absent=True"):
        adapter.replay(config, INPUTS, absent)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weights": (True,)}, r"Expected Replays\.weights to list False but got \(True,\)"),
        ({"rows": ()}, r"Expected Replays\.rows to permit something"),
        ({"layers": (2,)}, r"Expected Replays\.layers to list only False, True but got 2"),
        ({"same_bits": 1}, r"Expected Replays\.same_bits to be True or False"),
    ],
)
def test_claims_that_say_nothing_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Replays(**fields)
