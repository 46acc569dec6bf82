"""A backend in another process that permutes, and one that does nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.scope import ROWS_OF_THEIR_OWN, untried_methods
from moe_routing.implementations import BackendLost, ProcessAdapter
from moe_routing.implementations.protocol import METHODS

SPEAKER = """
import json, sys

def array(values):
    return {"dtype": "int64", "shape": [len(values)], "values": values}

for line in sys.stdin:
    asked = json.loads(line)
    if asked["request"] == "hello":
        claims = {"align": [1], "empty_takes": ["nothing"], "absent": [False]}
        reply = {"hello": {"protocol": 1, "name": "sorts", "methods": METHODS,
                           "capabilities": {"permutes": claims}}}
    else:
        ids, experts = asked["inputs"]["expert_ids"]["values"], asked["config"]["num_experts"]
        order = sorted(range(len(ids)), key=lambda r: ids[r])
        ends = [sum(i <= e for i in ids) for e in range(experts)]
        reply = {"sorted_routes": {"routes": array(order), "ends": array(ends)}}
        config = asked["config"]
        if any(i < 0 for i in ids) or config["align"] > 1 or config["empty_takes"]:
            reply = {"unsupported": "that"}
        BREAK
    print(json.dumps({"id": asked["id"], **reply}), flush=True)
"""


def speaker(folder: Path, methods: str = '["permute"]', wrong: str = "pass") -> Any:
    path = folder / "sorts.py"
    path.write_text(SPEAKER.replace("METHODS", methods).replace("BREAK", wrong))
    return ProcessAdapter([sys.executable, str(path)])


def test_it_is_held_to_the_clauses_of_permutation_alone(tmp_path: Path) -> None:
    adapter = speaker(tmp_path)
    assert {*untried_methods(adapter)} == {*METHODS} - {"permute"}
    for clause in select_clauses(["permutation.grouped", "permutation.no-tokens"]):
        plan = Plan(clauses=[clause], max_examples=5)
        assert check_clause(adapter, clause, plan).status == "pass"
    adapter.close()


def test_one_that_says_nothing_of_methods_only_routes(tmp_path: Path) -> None:
    path = tmp_path / "silent.py"
    path.write_text(SPEAKER.replace('"methods": METHODS,', "").replace("BREAK", "pass"))
    adapter = ProcessAdapter([sys.executable, str(path)])
    assert {*untried_methods(adapter)} == {*METHODS} - {"route", *ROWS_OF_THEIR_OWN}
    adapter.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ('reply = {"sorted_tokens": {"tokens": array([])}}', "sent sorted_tokens without counts"),
        ('reply["sorted_routes"]["rows"] = 3', r"sent unknown keys \['rows'\] in sorted_routes"),
        ('reply = {"routes": 1}', "expected one of sorted_routes, sorted_tokens"),
    ],
)
def test_a_reply_of_another_form_is_told(wrong: str, words: str, tmp_path: Path) -> None:
    from routed import routes_of

    from moe_routing.reference import PermutationConfig

    adapter = speaker(tmp_path, wrong=wrong)
    with pytest.raises(BackendLost, match=words):
        adapter.permute(PermutationConfig(num_experts=2), routes_of([[0], [1]]))


def test_unknown_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendLost, match=r"has methods=\['fly'\]; expected a list of route"):
        speaker(tmp_path, methods='["fly"]')
