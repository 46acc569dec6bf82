"""The shipped adapters' drops: its library's code, held to every clause, or known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.known.divergence import known_divergences
from moe_routing.implementations import Drops, ProcessAdapter, Unsupported, load_adapter
from moe_routing.reference import CapacityConfig, Routes

PACKAGES = {
    "megatron-core": "megatron.core.transformer.moe.moe_utils",
    "deepspeed:top1_drop": "deepspeed.moe.sharded_moe",
    "deepspeed:top2_drop": "deepspeed.moe.sharded_moe",
    "deepspeed:topk_drop": "deepspeed.moe.sharded_moe",
    "drops:switch": "transformers",
    "drops:nllb": "transformers",
    "drops:nllb_eval": "transformers",
}
UNSUPPORTED = {
    "deepspeed:top1_drop": {"capacity.order", "capacity.dropped-weigh-nothing"},
    "deepspeed:top2_drop": {"capacity.survivors"},
    "drops:nllb_eval": {"capacity.larger-than-batch", "capacity.zero"},
}
CLAUSES = select_clauses(["capacity.*"])


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda each: each.id.partition(".")[2])
@pytest.mark.parametrize("name", PACKAGES)
def test_every_clause_passes_or_is_known(name: str, clause: Clause) -> None:
    pytest.importorskip(PACKAGES[name])
    plan = Plan(clauses=[clause], max_examples=3, known=known_divergences([]))
    result = check_clause(load_adapter(name), clause, plan)
    status = "unsupported" if clause.id in UNSUPPORTED.get(name, ()) else "pass"
    if (name, clause.id) == ("megatron-core", "capacity.order"):
        status = "known"
    assert result.status == status, result.message


def test_megatron_keeps_no_first_tokens_by_position() -> None:
    pytest.importorskip(PACKAGES["megatron-core"])
    (clause,) = select_clauses(["capacity.order"])
    result = check_clause(load_adapter("megatron-core"), clause, Plan(clauses=[clause]))
    assert result.status == "fail"
    assert "is dropped by expert 0, which keeps" in result.message


def test_what_is_not_claimed_is_refused() -> None:
    routes = Routes(expert_ids=[[0], [-1]], weights=np.float32([[0.5], [0]]))
    drops = Drops(order=("weight",), absent=(False,), sums=("one",), max_tokens=1)
    words = "order='token', absent=True, sums='any', num_tokens=2 > 1"
    with pytest.raises(Unsupported, match=f"not claimed: {words}"):
        drops.require(CapacityConfig(num_experts=1), routes)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (
            {"order": ("last",)},
            "Expected Drops.order to list only 'token', 'slot', 'weight', 'free'",
        ),
        ({"factor": 1.0}, r"Expected Drops.factor to be a tuple .* write \(1.0,\)"),
        ({"minimum": (-1,)}, "Expected each value of Drops.minimum >= 0"),
        ({"sums": ("any",)}, "Expected Drops.sums to list 'one'"),
        ({"absent": (True,)}, "Expected Drops.absent to list False"),
    ],
)
def test_a_bad_claim_is_named(axes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Drops(**axes)


SPEAKER = """
import json, sys

for line in sys.stdin:
    asked = json.loads(line)
    if asked["request"] == "hello":
        claims = {"share": ["one"], "order": ["token"], "survivors": ["kept"], "minimum": [0]}
        claims["zero"] = ["nothing"]
        reply = {"hello": {"protocol": 1, "name": "drops", "methods": ["drop"],
                           "capabilities": {"drops": claims}}}
    else:
        config, given = asked["config"], asked["inputs"]
        ids, weights = given["expert_ids"]["values"], given["weights"]["values"]
        seen = {}
        for r, e in enumerate(ids):
            seen[e] = seen.get(e, 0) + 1
            if e < 0 or seen[e] > config["factor"]:
                ids[r], weights[r] = -1, 0.0
        reply = {"routing": {"expert_ids": {"dtype": "int64", **given["expert_ids"]},
                             "weights": {"dtype": "float32", **given["weights"]}}}
        if any(config[name] not in values for name, values in claims.items()):
            reply = {"unsupported": "that"}
    print(json.dumps({"id": asked["id"], **reply}), flush=True)
"""


def test_a_process_that_drops_is_held_to_it(tmp_path: Path) -> None:
    path = tmp_path / "drops.py"
    path.write_text(SPEAKER)
    adapter = ProcessAdapter([sys.executable, str(path)])
    assert adapter.capabilities().drops.share == ("one",)
    for clause in select_clauses(["capacity.respected", "capacity.order"]):
        plan = Plan(clauses=[clause], max_examples=5)
        result = check_clause(adapter, clause, plan)
        assert result.status == "pass", result.message
    adapter.close()
