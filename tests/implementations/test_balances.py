"""The shipped adapters' balance: their library's code, held to the clauses of what it has."""

from __future__ import annotations

from typing import Any

import pytest
from near_balances import balanced

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.clauses import Clause
from moe_routing.implementations import Balances, Unsupported, load_adapter

PACKAGES = {
    "megatron-core": "megatron.core.transformer.moe.moe_utils",
    "deepspeed:top1_drop": "deepspeed.moe.sharded_moe",
    "deepspeed:top2_drop": "deepspeed.moe.sharded_moe",
    "deepspeed:topk_drop": "deepspeed.moe.sharded_moe",
    "transformers-loss": "transformers.models.mixtral.modeling_mixtral",
    "torchtitan": "torchtitan.components.optimizer.optimizer",
    "megatron-bias": "megatron.core.parallel_state",
}
LOSS = {"aux-loss", "aux-gradient", "permutation-of-tokens", "doubling", "inputs-untouched"}
HAS = {
    "megatron-core": LOSS | {"z-loss"},
    **dict.fromkeys([name for name in PACKAGES if "deepspeed" in name], LOSS | {"counts"}),
    "transformers-loss": LOSS,
    **{name: {"bias-update", "inputs-untouched"} for name in ("torchtitan", "megatron-bias")},
}
CLAUSES = select_clauses(["balance.*"])


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda each: each.id.partition(".")[2])
@pytest.mark.parametrize("name", PACKAGES)
def test_every_clause_passes_or_is_about_what_there_is_not(name: str, clause: Clause) -> None:
    pytest.importorskip(PACKAGES[name])
    result = check_clause(load_adapter(name), clause, Plan(clauses=[clause], max_examples=3))
    has = clause.id.partition(".")[2] in HAS[name]
    assert result.status == ("pass" if has else "unsupported"), result.message


def test_what_is_not_claimed_is_refused() -> None:
    case = balanced(ids=[[[3, 1], [3, 0], [1, 2], [3, 2]]], valid=(1, 0, 1, 1), mode="eval")
    balances = Balances(mode=("train",), padded=(False,), ids=("top_k",), top_k=(1,))
    words = "mode='eval', padded=True, ids='any', top_k=2"
    with pytest.raises(Unsupported, match=f"not claimed: {words}"):
        balances.require(case.config, case.inputs)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"of": ("loss",)}, "Expected Balances.of to list only 'counts', 'aux_loss'"),
        ({"ids": ("any",)}, "Expected Balances.ids to list 'top_k'"),
        ({"max_layers": 0}, "Expected Balances.max_layers >= 1"),
    ],
)
def test_a_bad_claim_is_named(axes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Balances(**axes)
