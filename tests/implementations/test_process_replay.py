"""A backend in another process that replays."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moe_routing.conformance import Plan, select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.implementations import ProcessAdapter

SPEAKER = """
import json, math, sys

def array(shape, values, dtype="float64"):
    return {"dtype": dtype, "shape": shape, "values": values}

for line in sys.stdin:
    asked = json.loads(line)
    if asked["request"] == "hello":
        claims = [{"score": ["sigmoid"]}]
        replays = {"unrecorded": [False], "same_bits": False}
        capabilities = {"claims": claims, "dtypes": ["float32"], "takes": "logits",
                        "replays": replays}
        reply = {"hello": {"protocol": 1, "name": "sigmoid", "methods": ["replay"],
                           "capabilities": capabilities}}
    else:
        record, given = asked["recorded"], asked["inputs"]["logits"]
        (tokens, experts), z = given["shape"], [float(x) for x in given["values"]]
        _, layers, slots = record["expert_ids"]["shape"]
        rows = record["rows"]["values"] if "rows" in record else range(tokens)
        weights, ids = [], []
        for t, row in enumerate(rows):
            for k in range(slots):
                place = (row * layers + record["layer"]) * slots + k
                e = record["expert_ids"]["values"][place] if ROW else -1
                x = z[t * experts + e]
                s = 1 / (1 + math.exp(-max(x, -700))) if x == x else "nan"
                held = record["weights"]["values"][place] if "weights" in record else s
                weights.append(0.0 if e < 0 else held)
                ids.append(e)
        reply = {"routing": {"weights": array([tokens, slots], weights),
                             "expert_ids": array([tokens, slots], ids, "int64")}}
    print(json.dumps({"id": asked["id"], **reply}), flush=True)
"""


@pytest.mark.parametrize(("row", "status"), [("row >= 0", "pass"), ("True", "fail")])
def test_it_is_held_to_the_clauses_of_replay(row: str, status: str, tmp_path: Path) -> None:
    path = tmp_path / "sigmoid.py"
    path.write_text(SPEAKER.replace("ROW", row))
    adapter = ProcessAdapter([sys.executable, str(path)])
    (clause,) = select_clauses(["replay.padding"])
    result = check_clause(adapter, clause, Plan(clauses=[clause], max_examples=5))
    assert result.status == status, result.message
    adapter.close()
